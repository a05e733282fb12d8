# Builds what a release is made of, and runs the checks that need no cluster:
#
#   nix build .#images       controller.tar, webhook.tar, waiter.tar
#   nix run .#e2e -- test    the scenarios, on a kind cluster, with these images
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

      src = lib.fileset.toSource {
        root = ./.;
        fileset = lib.fileset.unions [
          ./.cargo
          ./Cargo.toml
          ./Cargo.lock
          ./README.md
          ./chart
          ./clippy.toml
          ./crates
          ./e2e
          ./fuzz
          ./manifests
          ./nix/images.json
          ./nix/render.sh
          ./rustfmt.toml
        ];
      };

      cargo =
        rustPlatform: args:
        rustPlatform.buildRustPackage (
          {
            inherit version src;
            cargoLock.lockFile = ./Cargo.lock;
          }
          // args
        );

      # Static programs that refer to nothing in the store. Those of one profile are built by themselves: what one
      # needs of a shared dependency doesn't end up in the other.
      programs =
        pkgs: profile:
        cargo pkgs.pkgsStatic.rustPlatform {
          pname = "migrations-${profile}";
          buildType = profile;
          cargoBuildFlags = lib.concatMap (name: [
            "--package"
            "migrations-${name}"
          ]) (lib.filter (name: description.programs.${name}.profile == profile) names);
          doCheck = false;
          stripAllList = [ "bin" ];
          allowedReferences = [ ];
        };
      names = lib.attrNames description.programs;
      program = pkgs: name: "${programs pkgs description.programs.${name}.profile}/bin/migrations-${name}";

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
        pkgs: name: runtimeInputs: runtimeEnv:
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
    in
    {
      packages = forAll (
        pkgs:
        let
          images = lib.genAttrs names (image pkgs);
          archives = pkgs.linkFarm "migrations-images" (
            map (name: {
              name = "${name}.tar";
              path = images.${name};
            }) names
          );
        in
        lib.genAttrs names (
          name:
          pkgs.linkFarm "migrations-${name}" [
            {
              name = "bin/migrations-${name}";
              path = program pkgs name;
            }
          ]
        )
        // lib.mapAttrs' (name: lib.nameValuePair "${name}-image") images
        // {
          default = pkgs.linkFarm "migrations-operator" (
            map (name: {
              name = "bin/migrations-${name}";
              path = program pkgs name;
            }) names
          );
          images = archives;
          # install.yaml and the packed chart, with images by their tag.
          manifests = pkgs.runCommand "migrations-manifests" { } ''
            cd ${src}
            ${lib.getExe (outputsOf "packages" pkgs).render} $out ${description.registry} ${version}
          '';
          harness = cargo pkgs.rustPlatform {
            pname = "migrations-e2e";
            cargoBuildFlags = [
              "--package"
              "migrations-e2e"
            ];
            doCheck = false;
            meta.mainProgram = "migrations-e2e";
          };
        }
        // (publishing pkgs).scripts
        // lib.genAttrs [ "e2e" "demo" ] (
          name:
          script pkgs name
            [
              (outputsOf "packages" pkgs).harness
              pkgs.docker-client
            ]
            {
              IMAGES = "${archives}";
              TOOLS = "${pkgs.linkFarm "migrations-tools" [
                {
                  name = "kind";
                  path = lib.getExe pkgs.kind;
                }
                {
                  name = "kubectl";
                  path = lib.getExe' pkgs.kubectl "kubectl";
                }
              ]}";
            }
        )
      );

      apps = forAll (
        pkgs:
        lib.genAttrs ([ "demo" "e2e" ] ++ lib.attrNames (publishing pkgs).scripts) (name: {
          type = "app";
          program = lib.getExe (outputsOf "packages" pkgs).${name};
        })
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
          clippy = cargo pkgs.rustPlatform {
            pname = "migrations-clippy";
            nativeBuildInputs = [ pkgs.clippy ];
            doCheck = false;
            buildPhase = "cargo clippy --workspace --all-targets --all-features --offline -- --deny warnings";
            installPhase = "touch $out";
          };
          format = pkgs.runCommand "migrations-format" {
            nativeBuildInputs = [
              pkgs.cargo
              pkgs.rustfmt
            ];
          } "cd ${src} && cargo fmt --all --check && touch $out";
        }
        // (publishing pkgs).scripts
        // (publishing pkgs).checks
      );

      devShells = forAll (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.cargo
            pkgs.cargo-deny
            pkgs.clippy
            pkgs.docker-client
            pkgs.go
            pkgs.kind
            pkgs.kubectl
            pkgs.kubernetes-helm
            pkgs.rustc
            pkgs.rustfmt
          ];
        };
      });

      formatter = forAll (pkgs: pkgs.nixfmt-tree);
    };
}
