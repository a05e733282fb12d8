# Builds what a release is made of, and runs the checks that need no cluster:
#
#   nix build .#images       controller.tar, webhook.tar, waiter.tar
#   nix run .#e2e            the scenarios, on a kind cluster, with these images
#   nix flake check          everything else
{
  description = "Runs database migrations on Kubernetes, once, before the Pods that need them start";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAll = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      outputsOf = kind: pkgs: self.${kind}.${pkgs.stdenv.hostPlatform.system};

      workspace = (lib.importTOML ./Cargo.toml).workspace.package;
      inherit (workspace) version;
      # Said once, for the images made here and for those that the harness packs without Nix.
      description = lib.importJSON ./nix/images.json;

      sources =
        parts:
        lib.fileset.toSource {
          root = ./.;
          fileset = lib.fileset.unions parts;
        };
      src = sources [
        ./.cargo
        ./Cargo.toml
        ./Cargo.lock
        ./README.md
        ./chart
        ./clippy.toml
        ./crates
        ./deny.toml
        ./e2e
        ./fuzz
        ./manifests
        ./nix/images.json
        ./nix/render.sh
        ./rustfmt.toml
      ];

      cargo =
        rustPlatform: args:
        rustPlatform.buildRustPackage (
          {
            inherit version src;
            cargoLock.lockFile = ./Cargo.lock;
          }
          // args
          # Nothing is compiled a second time in a sandbox.
          // { env = { CARGO_INCREMENTAL = "0"; } // args.env or { }; }
        );

      # Static programs that refer to nothing in the store. Those of one profile are built by themselves: what one
      # needs of a shared dependency doesn't end up in the other.
      programs =
        pkgs: profile:
        cargo pkgs.pkgsStatic.rustPlatform {
          pname = "migrations-${profile}";
          # What programs are made of, so that nothing else has them built again. Cargo asks for all of a workspace.
          src = sources [ ./Cargo.toml ./Cargo.lock ./crates ./e2e/Cargo.toml ./e2e/src/main.rs ./e2e/tests ];
          buildType = profile;
          cargoBuildFlags = map (name: "--package=migrations-${name}") (namesOf profile);
          # What crates each is made of, in the program itself: scanners of images read it.
          auditable = true;
          doCheck = false;
          stripAllList = [ "bin" ];
          allowedReferences = [ ];
        };
      names = lib.attrNames description.programs;
      namesOf = profile: lib.filter (name: description.programs.${name}.profile == profile) names;
      program = pkgs: name: "${programs pkgs description.programs.${name}.profile}/bin/migrations-${name}";
      bin = pkgs: name: lib.nameValuePair "bin/migrations-${name}" (program pkgs name);

      # One layer with one file. `contents` would bring links into the store.
      image =
        pkgs: name:
        pkgs.dockerTools.buildLayeredImage {
          name = "${description.registry}/migrations-${name}";
          tag = version;
          compressor = "none";
          extraCommands = "install -D -m 0555 ${program pkgs name} migrations-${name}";
          config = {
            Entrypoint = [ "/migrations-${name}" ];
            User = description.user;
            Labels = lib.mapAttrs' (key: lib.nameValuePair "org.opencontainers.image.${key}") {
              title = "migrations-${name}";
              inherit (description.programs.${name}) description;
              inherit version;
              licenses = workspace.license;
              source = workspace.repository;
              revision = self.rev or self.dirtyRev or "unknown";
            };
          };
        };

      script =
        pkgs: runtimeInputs: runtimeEnv: name:
        pkgs.writeShellApplication {
          inherit name runtimeInputs runtimeEnv;
          text = builtins.readFile ./nix/${name}.sh;
        };
      publishing =
        pkgs:
        import ./nix/publishing.nix {
          inherit lib pkgs;
          cargo = cargo pkgs.rustPlatform;
          checkout = self;
        };
      # Passes if the command does.
      tidy =
        pkgs: nativeBuildInputs: command:
        pkgs.runCommand "migrations-tidy" { inherit nativeBuildInputs; } "${command} && touch $out";
      app = pkgs: name: {
        type = "app";
        program = lib.getExe (outputsOf "packages" pkgs).${name};
      };
    in
    {
      packages = forAll (
        pkgs:
        let
          link = name: entries: pkgs.linkFarm "migrations-${name}" (lib.listToAttrs entries);
          images = lib.genAttrs names (image pkgs);
          archives = link "images" (map (name: lib.nameValuePair "${name}.tar" images.${name}) names);
          tools = link "tools" [
            (lib.nameValuePair "kind" (lib.getExe pkgs.kind))
            (lib.nameValuePair "kubectl" (lib.getExe' pkgs.kubectl "kubectl"))
          ];
          harness = cargo pkgs.rustPlatform {
            pname = "migrations-e2e";
            cargoBuildFlags = [ "--package=migrations-e2e" ];
            doCheck = false;
            meta.mainProgram = "migrations-e2e";
          };
          with-cluster = script pkgs [ harness pkgs.docker-client ] {
            IMAGES = "${archives}";
            TOOLS = "${tools}";
          };
        in
        lib.genAttrs names (name: link name [ (bin pkgs name) ])
        // lib.mapAttrs' (name: lib.nameValuePair "${name}-image") images
        // lib.genAttrs [ "e2e" "demo" ] with-cluster
        // {
          inherit harness;
          default = link "operator" (map (bin pkgs) names);
          images = archives;
          # install.yaml and the packed chart, with images by their tag.
          manifests = pkgs.runCommand "migrations-manifests" { } ''
            cd ${src}
            ${lib.getExe (outputsOf "packages" pkgs).render} $out ${description.registry} ${version}
          '';
        }
        // (publishing pkgs).scripts
      );

      apps = forAll (
        pkgs: lib.genAttrs ([ "demo" "e2e" ] ++ lib.attrNames (publishing pkgs).scripts) (app pkgs)
      );

      checks = forAll (
        pkgs:
        {
          inherit (outputsOf "packages" pkgs)
            images
            manifests
            e2e
            demo
            ;
          test = cargo pkgs.rustPlatform {
            pname = "migrations-test";
            buildType = "debug";
            cargoBuildFlags = [ "--workspace" ];
            cargoTestFlags = [ "--workspace" ];
            # kustomize, which tests render the manifests with.
            nativeBuildInputs = [ pkgs.kubectl ];
          };
          control-plane = cargo pkgs.rustPlatform {
            pname = "migrations-control-plane";
            buildType = "debug";
            cargoBuildFlags = [ "--workspace" ];
            cargoTestFlags = map (name: "--package=migrations-${name}") [ "controller" "webhook" "testkit" ];
            checkFeatures = [ "control-plane" ];
            nativeBuildInputs = [ pkgs.kubectl ];
            env.HELM = lib.getExe pkgs.kubernetes-helm;
            env.KUBEBUILDER_ASSETS = pkgs.linkFarm "migrations-test-assets" {
              etcd = lib.getExe' pkgs.etcd "etcd";
              kube-apiserver = lib.getExe' pkgs.kubernetes "kube-apiserver";
              kube-controller-manager = lib.getExe' pkgs.kubernetes "kube-controller-manager";
              kubectl = lib.getExe' pkgs.kubectl "kubectl";
            };
          };
          clippy = cargo pkgs.rustPlatform {
            pname = "migrations-clippy";
            nativeBuildInputs = [ pkgs.clippy ];
            doCheck = false;
            buildPhase = "cargo clippy --workspace --all-targets --all-features --offline -- --deny warnings";
            installPhase = "touch $out";
          };
          dependencies = cargo pkgs.rustPlatform {
            pname = "migrations-dependencies";
            nativeBuildInputs = [ pkgs.cargo-deny ];
            doCheck = false;
            buildPhase = "cargo deny --offline check bans licenses sources";
            installPhase = "touch $out";
          };
          format = tidy pkgs [ pkgs.cargo pkgs.rustfmt ] "cd ${src} && cargo fmt --all --check";
          nix-format = tidy pkgs [ pkgs.nixpkgs-fmt ] "nixpkgs-fmt --check ${./flake.nix} ${./nix/publishing.nix}";
          nix-unused = tidy pkgs [ pkgs.deadnix ] "deadnix --fail ${./flake.nix} ${./nix/publishing.nix}";
        }
        // (publishing pkgs).scripts
        // (publishing pkgs).checks
      );

      devShells = forAll (pkgs: {
        # rustup, since rust-toolchain.toml asks for a second target: static programs are compiled for it.
        default = pkgs.mkShell {
          packages = [
            pkgs.cargo-deny
            pkgs.deadnix
            pkgs.docker-client
            pkgs.git
            pkgs.go
            pkgs.kind
            pkgs.kubectl
            pkgs.kubernetes-helm
            # Not the package: its headers would be found by what compiles for glibc.
            (pkgs.writeShellScriptBin "musl-gcc" ''exec ${pkgs.musl.dev}/bin/musl-gcc "$@"'')
            pkgs.nixpkgs-fmt
            pkgs.python3
            pkgs.rustup
            pkgs.shellcheck
          ];
        };
      });

      formatter = forAll (pkgs: pkgs.nixpkgs-fmt);
    };
}
