# What `nix flake check` builds: the package and its tests, lints and formats, the module, and every scenario on every
# kernel that it is meant for.
{
  lib,
  pkgs,
  self,
}:
let
  electrode = self.packages.${pkgs.stdenv.hostPlatform.system}.electrode;

  # The package's build with another command in place of its own.
  cargo =
    name: inputs: command:
    electrode.overrideAttrs (old: {
      pname = "electrode-${name}";
      nativeBuildInputs = old.nativeBuildInputs ++ inputs;
      buildPhase = ''
        runHook preBuild
        ${command}
      '';
      installPhase = "touch $out";
      meta = { };
    });

  # A real machine with the module in it, evaluated to its unit.
  evaluated = lib.nixosSystem {
    modules = [
      (import ./host.nix self)
      {
        nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
        boot.loader.systemd-boot.enable = true;
        fileSystems."/".device = "/dev/vda";
        fileSystems."/".fsType = "ext4";
        services.electrode = {
          enable = true;
          index = 0;
          replicas = [
            { address = "10.0.0.1"; }
            { address = "10.0.0.2"; }
            { address = "10.0.0.3"; }
          ];
          interface = "eth0";
        };
      }
    ];
  };
in
{
  package = electrode;
  bpf-objects = self.packages.${pkgs.stdenv.hostPlatform.system}.bpf-objects;

  clippy = cargo "clippy" [
    pkgs.clippy
  ] "cargo clippy --offline --workspace --all-targets -- -D warnings";

  rustfmt = cargo "rustfmt" [ pkgs.rustfmt ] "cargo fmt --all --check";

  # Those that need no kernel; the others run in the virtual machines.
  tests = cargo "tests" [ ] ''
    cargo test --release --offline --workspace --exclude electrode --exclude electrode-dataplane \
      --exclude electrode-lab --exclude electrode-replica --exclude xtask
  '';

  nixfmt =
    pkgs.runCommand "electrode-nixfmt"
      { nativeBuildInputs = [ (pkgs.nixfmt-rfc-style or pkgs.nixfmt) ]; }
      ''
        nixfmt --check ${../flake.nix} ${../nix}/*.nix ${../nixos-modules}/*.nix
        touch $out
      '';

  module = pkgs.writeText "electrode.service" (
    builtins.unsafeDiscardStringContext evaluated.config.systemd.units."electrode.service".text
  );
}
// import ./vm-tests.nix { inherit lib pkgs self; }
