# Disk images of nix/host.nix: qcow2 and raw by make-disk-image, ISO by the installation media's module. All of that is in
# nixpkgs since long before 24.11.
{
  lib,
  nixpkgs,
  self,
}:
let
  systems = [
    "x86_64-linux"
    "aarch64-linux"
  ];

  disk =
    system: format:
    let
      pkgs = nixpkgs.legacyPackages.${system};
      evaluated = lib.nixosSystem {
        modules = [
          (import ./host.nix self)
          {
            nixpkgs.hostPlatform = system;
            boot.growPartition = true;
            boot.loader.grub.enable = false;
            boot.loader.systemd-boot.enable = true;
            fileSystems."/" = {
              device = "/dev/disk/by-label/nixos";
              fsType = "ext4";
              autoResize = true;
            };
            fileSystems."/boot" = {
              device = "/dev/disk/by-label/ESP";
              fsType = "vfat";
            };
          }
        ];
      };
    in
    import "${nixpkgs}/nixos/lib/make-disk-image.nix" {
      inherit lib pkgs format;
      inherit (evaluated) config;
      name = "electrode-${format}";
      partitionTableType = "efi";
      diskSize = "auto";
    };

  iso =
    system:
    (lib.nixosSystem {
      modules = [
        "${nixpkgs}/nixos/modules/installer/cd-dvd/iso-image.nix"
        (import ./host.nix self)
        {
          nixpkgs.hostPlatform = system;
          isoImage.makeEfiBootable = true;
        }
      ];
    }).config.system.build.isoImage;
in
lib.genAttrs systems (system: {
  qcow2 = disk system "qcow2";
  raw = disk system "raw";
  iso = iso system;
})
