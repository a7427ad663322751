# As much of nixpkgs as our modules use, so that they can be evaluated where nixpkgs can't be reached. It checks types as
# far as is needed to see that a wrong value is refused; everything else is nixpkgs' own business.
let
  inherit (builtins)
    all
    attrNames
    concatStringsSep
    elem
    filter
    isAttrs
    isBool
    isInt
    isList
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    replaceStrings
    ;

  type = name: check: {
    inherit name check;
    merge = value: value;
  };

  types = {
    str = type "string" isString;
    path = type "path" (value: builtins.isPath value || isString value);
    package = type "package" (value: isAttrs value || isString value);
    port = type "port" (value: isInt value && value >= 0 && value <= 65535);
    bool = type "boolean" isBool;
    enum = values: type "one of ${builtins.toJSON values}" (value: elem value values);
    strMatching =
      pattern: type "string matching ${pattern}" (value: isString value && match pattern value != null);
    nullOr =
      inner:
      type "null or ${inner.name}" (value: value == null || inner.check value)
      // {
        inherit (inner) merge;
      };
    listOf =
      inner:
      type "list of ${inner.name}" (value: isList value && all inner.check value)
      // {
        merge = map inner.merge;
      };
    either = a: b: type "${a.name} or ${b.name}" (value: a.check value || b.check value);
    submodule =
      { options }:
      type "submodule" (value: isAttrs value && all (name: options ? ${name}) (attrNames value))
      // {
        merge = value: mapAttrs (name: option: take "replicas.*.${name}" option value name) options;
      };
    ints = {
      unsigned = type "unsigned integer" (value: isInt value && value >= 0);
      positive = type "positive integer" (value: isInt value && value > 0);
      between =
        low: high:
        type "integer between ${toString low} and ${toString high}" (
          value: isInt value && value >= low && value <= high
        );
    };
  };

  # The value of an option: what was set, or its default.
  take =
    path: option: set: name:
    let
      value = set.${name} or option.default or (throw "The option `${path}' is used but not defined.");
    in
    if option.type.check value then
      option.type.merge value
    else
      throw "The option `${path}' is not of type ${option.type.name}: ${builtins.toJSON value}";

  hasInfix = infix: text: length (builtins.split (escapeRegex infix) text) > 1;
  escapeRegex = replaceStrings [ "." "[" "]" ] [ "\\." "\\[" "\\]" ];

  escapeShellArg =
    argument:
    let
      text = toString argument;
    in
    if match "[[:alnum:],._+:@%/-]+" text != null then
      text
    else
      "'${replaceStrings [ "'" ] [ "'\\''" ] text}'";
in
rec {
  lib = {
    inherit types hasInfix concatStringsSep;
    mkOption = option: option;
    mkEnableOption = what: {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
    mkIf = condition: content: if condition then content else { };
    literalExpression = text: text;
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: values: if condition then values else [ ];
    concatMapStrings = f: values: concatStringsSep "" (map f values);
    mod = a: b: a - b * (a / b);
    allUnique = values: all (value: length (filter (other: other == value) values) == 1) values;
    versionOlder = a: b: builtins.compareVersions a b < 0;
    getExe = package: "${package}/bin/electrode";
    escapeShellArgs = arguments: concatStringsSep " " (map escapeShellArg arguments);
  };

  # Evaluates one module for `services.<name>` with these settings, on a machine with this kernel.
  evaluate =
    {
      module,
      name,
      settings,
      kernel,
      package,
    }:
    let
      # A derivation is only its script here: what it would build is checked with the real binary.
      pkgs = {
        stdenv.hostPlatform.system = "x86_64-linux";
        runCommand =
          _: environment: script:
          environment
          // {
            inherit script;
            outPath = "/nix/store/${name}";
          };
      };
      self.packages.x86_64-linux.electrode = package;
      evaluated = (import module self) { inherit config lib pkgs; };
      options = evaluated.options.services.${name};
      unknown = filter (option: !(options ? ${option})) (attrNames settings);
      config = {
        boot.kernelPackages.kernel.version = kernel;
        services = listToAttrs [
          {
            inherit name;
            value =
              if unknown == [ ] then
                mapAttrs (option: declared: take "services.${name}.${option}" declared settings option) options
              else
                throw "The option `services.${name}.${builtins.head unknown}' does not exist.";
          }
        ];
      };
    in
    evaluated.config;

  # A unit as NixOS writes it: lists as one line each, where an empty string resets.
  renderUnit =
    service:
    let
      line =
        key: value:
        "${key}=${if isBool value then (if value then "true" else "false") else toString value}";
      lines = key: value: if isList value then map (line key) value else [ (line key value) ];
      section =
        name: entries:
        [ "[${name}]" ] ++ builtins.concatLists (map (key: lines key entries.${key}) (attrNames entries));
    in
    concatStringsSep "\n" (
      section "Unit" {
        Description = service.description;
        After = concatStringsSep " " service.after;
        Wants = concatStringsSep " " service.wants;
      }
      ++ [ "" ]
      ++ section "Service" service.serviceConfig
      ++ (
        if service ? wantedBy then
          [
            ""
            "[Install]"
            "WantedBy=${concatStringsSep " " service.wantedBy}"
          ]
        else
          [ ]
      )
    )
    + "\n";
}
