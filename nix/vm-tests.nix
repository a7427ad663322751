# The scenarios of vm-tests under the NixOS test driver: one test for each scenario and kernel. Names and addresses are
# those of the plain QEMU runner: interface eth1, 192.168.1.N in the order of the machines' names.
{
  lib,
  pkgs,
  self,
}:
let
  scenarios = lib.importJSON ../vm-tests/scenarios.json;

  # A kernel that has run out is a `throw` in nixpkgs, one that isn't there yet is no attribute.
  has =
    name:
    let
      tried = builtins.tryEval (pkgs.${name} or null);
    in
    if tried.success then tried.value else null;

  # Those that this nixpkgs has; the newest is always there.
  kernels =
    lib.filterAttrs (_: packages: packages != null) {
      "5.10" = has "linuxPackages_5_10";
      "5.15" = has "linuxPackages_5_15";
      "6.1" = has "linuxPackages_6_1";
      "6.6" = has "linuxPackages_6_6";
      "6.12" = has "linuxPackages_6_12";
    }
    // {
      newest = pkgs.linuxPackages_latest;
    };

  # Scenarios name Debian's kernels; what is meant for 6.1 is meant for its neighbours too.
  meant =
    scenario: kernel:
    builtins.elem (
      {
        "5.15" = "6.1";
        "6.6" = "6.12";
      }
      .${kernel} or kernel
    ) scenario.kernels;

  electrode = self.packages.${pkgs.stdenv.hostPlatform.system}.electrode;
  tests = pkgs.callPackage ./test-programs.nix { };

  machine =
    machines: packages: name:
    let
      replicas = builtins.filter (lib.hasPrefix "replica") machines;
      index = lib.lists.findFirstIndex (each: each == name) null replicas;
      numbered = lib.imap1 (number: each: { inherit number each; }) machines;
      address =
        wanted: "192.168.1.${toString (lib.findFirst (one: one.each == wanted) null numbered).number}";
      group = map (each: {
        address = address each;
        port = 7700;
      }) replicas;
      text =
        "f ${toString ((builtins.length replicas - 1) / 2)}\n"
        + lib.concatMapStrings (one: "replica ${one.address}:${toString one.port}\n") group;
    in
    {
      imports = [ self.nixosModules.electrode ];
      boot.kernelPackages = packages;
      boot.kernelModules = [
        "sch_netem"
        "veth"
        "bridge"
      ];
      virtualisation.memorySize = 1024;
      virtualisation.vlans = [ 1 ];
      networking.firewall.enable = false;
      environment.systemPackages = [
        electrode
        tests
        pkgs.iproute2
        # Which build the service runs from its next start on; both are this one unless a flake of an older tag is given.
        (pkgs.writeShellScriptBin "electrode-options" ''
          # A drop-in that starts the service with more options, until the next boot.
          set -eu
          command=$(systemctl show -p ExecStart --value electrode | sed 's/.*argv\[\]=\([^;]*\) ;.*/\1/')
          mkdir -p /run/systemd/system/electrode.service.d
          printf '[Service]\nExecStart=\nExecStart=%s %s\n' "$command" "$*" \
            > /run/systemd/system/electrode.service.d/options.conf
          systemctl daemon-reload
          systemctl restart --no-block electrode
        '')
        (pkgs.writeShellScriptBin "electrode-binary" ''
          case "$1" in current | previous) ;; *) exit 1 ;; esac
          systemctl daemon-reload
        '')
      ];
      environment.etc = lib.mkIf (index == null && replicas != [ ]) {
        "electrode/config.txt".text = text;
      };
      services.electrode = lib.mkIf (index != null) {
        enable = true;
        replicas = group;
        inherit index;
        interface = "eth1";
        package = electrode;
      };
    };

  test =
    name: scenario: kernel: packages:
    pkgs.testers.runNixOSTest {
      name = "electrode-${name}-${lib.replaceStrings [ "." ] [ "-" ] kernel}";
      nodes = lib.genAttrs scenario.machines (machine scenario.machines packages);
      # Written for two drivers; the linters know one.
      skipLint = true;
      skipTypeCheck = true;
      testScript =
        builtins.readFile ../vm-tests/scenarios/prelude.py
        + "\n"
        + builtins.readFile (../vm-tests/scenarios + "/${name}.py");
    };
in
lib.concatMapAttrs (
  name: scenario:
  lib.concatMapAttrs (
    kernel: packages:
    lib.optionalAttrs (meant scenario kernel) {
      "vm-${name}-${lib.replaceStrings [ "." ] [ "-" ] kernel}" = test name scenario kernel packages;
    }
  ) kernels
) scenarios
