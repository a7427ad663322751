{
  description = "Electrode: state-machine replication whose hot path runs in the Linux kernel";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAllSystems = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      version = (lib.importTOML ./Cargo.toml).workspace.package.version;
      package =
        pkgs:
        pkgs.rustPlatform.buildRustPackage {
          pname = "electrode";
          inherit version;
          src = lib.fileset.toSource {
            root = ./.;
            fileset = lib.fileset.unions [
              ./Cargo.toml
              ./Cargo.lock
              ./config.txt
              ./bpf-asm
              ./crates
              ./xtask
            ];
          };
          cargoLock.lockFile = ./Cargo.lock;
          cargoBuildFlags = [
            "--package"
            "electrode"
          ];
          # The tests load programs into the kernel and make network namespaces: they run outside the build's sandbox.
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
        };
    in
    {
      packages = forAllSystems (pkgs: {
        default = package pkgs;
        electrode = package pkgs;
      });

      overlays.default = final: _prev: { electrode = package final; };

      apps = forAllSystems (pkgs: {
        default = {
          type = "app";
          program = lib.getExe (package pkgs);
        };
      });

      nixosModules = {
        default = import ./nixos-modules/electrode.nix self;
        electrode = import ./nixos-modules/electrode.nix self;
      };

      devShells = forAllSystems (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            cargo
            clippy
            rustc
            rustfmt
            bpftools
            iproute2
            qemu
          ];
        };
      });

      checks = forAllSystems (pkgs: {
        package = package pkgs;
      });

      formatter = forAllSystems (pkgs: pkgs.nixfmt-rfc-style or pkgs.nixfmt);
    };
}
