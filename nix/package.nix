# The `electrode` command. Nothing of the build folder or of the time of the build gets into it, so that two builds are equal.
{
  lib,
  rustPlatform,
}:
rustPlatform.buildRustPackage {
  pname = "electrode";
  inherit ((lib.importTOML ../Cargo.toml).workspace.package) version;
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../config.txt
      ../bpf-asm
      ../crates
      ../xtask
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [
    "--package"
    "electrode"
  ];
  # Tests that load programs and make namespaces can't run in the build's sandbox; `checks.tests` runs the others.
  doCheck = false;
  meta = {
    description = "State-machine replication whose hot path runs in the Linux kernel";
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "electrode";
    platforms = lib.platforms.linux;
  };
}
