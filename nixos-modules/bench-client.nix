# A load on an Electrode group, for machines that measure: `systemctl start electrode-bench` runs it once, and its report
# goes to the journal.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.electrode-bench;
in
{
  options.services.electrode-bench = {
    enable = lib.mkEnableOption "a client that puts an Electrode group under load";

    package = lib.mkOption {
      type = lib.types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.electrode;
      defaultText = lib.literalExpression "electrode.packages.\${system}.electrode";
      description = "The package that provides the `electrode` command.";
    };

    configFile = lib.mkOption {
      type = lib.types.path;
      default = "/etc/electrode/config.txt";
      description = "The group's configuration.";
    };

    clients = lib.mkOption {
      type = lib.types.ints.between 1 10000;
      default = 8;
      description = "How many clients ask at once.";
    };

    seconds = lib.mkOption {
      type = lib.types.ints.positive;
      default = 30;
      description = "For how long.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    systemd.services.electrode-bench = {
      description = "Load on an Electrode group";
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      serviceConfig = {
        Type = "oneshot";
        ExecStart = lib.escapeShellArgs [
          (lib.getExe cfg.package)
          "bench"
          "--config"
          cfg.configFile
          "--clients"
          (toString cfg.clients)
          "--seconds"
          (toString cfg.seconds)
        ];
        DynamicUser = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        ProtectHome = true;
        ProtectSystem = "strict";
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
        ];
      };
    };
  };
}
