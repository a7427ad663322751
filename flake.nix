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
      modules = {
        electrode = import ./nixos-modules/electrode.nix self;
        bench-client = import ./nixos-modules/bench-client.nix self;
      };
      images = import ./nix/images.nix { inherit lib nixpkgs self; };
    in
    {
      packages = forAllSystems (
        pkgs:
        let
          electrode = pkgs.callPackage ./nix/package.nix { };
          image = name: images.${pkgs.stdenv.hostPlatform.system}.${name};
        in
        {
          default = electrode;
          inherit electrode;
          bpf-objects = pkgs.callPackage ./nix/bpf-objects.nix { inherit electrode; };
          oci-image = pkgs.callPackage ./nix/oci-image.nix { inherit electrode; };
          image-qcow2 = image "qcow2";
          image-raw = image "raw";
          image-iso = image "iso";
        }
      );

      overlays.default = final: _prev: { electrode = final.callPackage ./nix/package.nix { }; };

      apps = forAllSystems (
        pkgs:
        let
          package = self.packages.${pkgs.stdenv.hostPlatform.system}.electrode;
          app = program: {
            type = "app";
            program = "${program}";
          };
          # A subcommand as an app of its own; what follows `--` is its arguments.
          subcommand =
            name:
            pkgs.writeShellScript "electrode-${name}" ''
              export PATH=${lib.makeBinPath [ pkgs.iproute2 ]}:$PATH
              exec ${lib.getExe package} ${name} "$@"
            '';
        in
        {
          default = app (lib.getExe package);
          electrode = app (lib.getExe package);
          demo = app (subcommand "demo");
          bench = app (subcommand "bench");
        }
      );

      nixosModules = modules // {
        default = modules.electrode;
      };

      nixosConfigurations = import ./nix/hosts.nix { inherit lib self; };

      devShells = forAllSystems (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.cargo
            pkgs.clippy
            pkgs.rustc
            pkgs.rustfmt
            pkgs.bpftools
            pkgs.deadnix
            pkgs.ethtool
            pkgs.iproute2
            pkgs.python3
            pkgs.qemu
            self.formatter.${pkgs.stdenv.hostPlatform.system}
          ];
        };
      });

      checks = forAllSystems (pkgs: import ./nix/checks.nix { inherit lib pkgs self; });

      formatter = forAllSystems (pkgs: pkgs.nixfmt-rfc-style or pkgs.nixfmt);
    };
}
