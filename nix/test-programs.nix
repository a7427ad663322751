# The test programs that scenarios run in a machine, under the names that they have in the plain runner's guests.
{
  callPackage,
}:
(callPackage ./package.nix { }).overrideAttrs (_: {
  pname = "electrode-test-programs";
  buildPhase = ''
    runHook preBuild
    cargo test --release --offline --no-run -p bpf-asm --test builder_random --test engines_random
    cargo test --release --offline --no-run -p electrode-dataplane --test kernel
    cargo test --release --offline --no-run -p electrode-replica --test group
  '';
  installPhase = ''
    runHook preInstall
    mkdir -p $out/bin
    for pair in builder_random:random-builder-tests engines_random:random-instructions-tests \
      kernel:dataplane-kernel-tests group:replica-group-tests; do
      built=$(find target -type f -executable -path "*/deps/''${pair%%:*}-*" | head -n 1)
      install -D "$built" "$out/bin/''${pair##*:}"
    done
    runHook postInstall
  '';
  meta = { };
})
