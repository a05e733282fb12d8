# The scripts that publish, as programs with what they need, and what checks them.
{ lib, pkgs, cargo, checkout }:
let
  needs = {
    push = [ pkgs.crane pkgs.gzip ];
    sign = [ pkgs.cosign pkgs.crane pkgs.syft ];
    tag = [ pkgs.crane ];
    pull = [ pkgs.crane ];
    promote = [ pkgs.cosign pkgs.crane ];
    render = [ pkgs.kubectl ];
    lint-workflows = [ pkgs.check-jsonschema pkgs.zizmor ];
  };
  scripts = lib.genAttrs (lib.attrNames needs) (
    name:
    pkgs.writeShellApplication {
      inherit name;
      runtimeInputs = needs.${name};
      text = builtins.readFile (./. + "/${name}.sh");
    }
  );
in
{
  inherit scripts;
  checks = {
    # Against a registry on loopback, which the sandbox has.
    publishing = cargo {
      pname = "migrations-publishing";
      src = checkout;
      buildType = "debug";
      cargoBuildFlags = [ "--package=migrations-e2e" ];
      cargoTestFlags = [ "--package=migrations-e2e" "--features=publishing" "--test=publishing" ];
      nativeBuildInputs = [ pkgs.crane ];
    };
    workflows = pkgs.runCommand "migrations-workflows" { } ''
      cd ${checkout}
      ${lib.getExe scripts.lint-workflows}
      touch $out
    '';
  };
}
