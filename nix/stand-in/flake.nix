# A small stand-in for nixpkgs where that can't be had: just the functions that the project's flake calls, each checking
# its argument names, with builders that run the machine's own cargo, tar and python. Needs --impure and sandbox = false.
{
  outputs =
    { ... }:
    let
      lib = rec {
        genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
        nameValuePair = name: value: { inherit name value; };
        mapAttrs' = f: s: builtins.listToAttrs (map (n: f n s.${n}) (builtins.attrNames s));
        importTOML = p: builtins.fromTOML (builtins.readFile p);
        importJSON = p: builtins.fromJSON (builtins.readFile p);
        inherit (builtins) attrNames filter listToAttrs;
        getExe' = d: name: "${d}/bin/${name}";
        getExe = d: "${d}/bin/${d.meta.mainProgram}";
        fileset = {
          unions = ps: map (p: if builtins.pathExists p then p else throw "no ${toString p}") ps;
          toSource =
            { root, fileset }:
            let
              under = p: builtins.any (q: p == toString q || hasPrefix (toString q + "/") p || hasPrefix (p + "/") (toString q)) fileset;
            in
            builtins.path { path = root; name = "source"; filter = p: _: under p; };
        };
        hasPrefix = a: b: builtins.substring 0 (builtins.stringLength a) b == a;
      };
      # reject argument names that the real function does not have
      only =
        fn: known: args:
        let bad = builtins.filter (n: !(builtins.elem n known)) (builtins.attrNames args);
        in if bad == [ ] then args else throw "${fn}: unexpected ${toString bad}";
      pkgsFor =
        system:
        let
          run =
            name: env: script:
            derivation ({
              inherit name system;
              builder = "/bin/sh";
              args = [ "-euc" script ];
              PATH = builtins.getEnv "PATH"; # run nix with --impure
              RUSTUP_HOME = builtins.getEnv "RUSTUP_HOME";
              RUSTUP_TOOLCHAIN = builtins.getEnv "RUSTUP_TOOLCHAIN";
              CARGO_HOME = builtins.getEnv "CARGO_HOME";
              HOME = builtins.getEnv "HOME";
            } // env);
          placeholder = name: run name { } "mkdir -p $out/bin; printf '#!/bin/sh\\nexec /usr/bin/${name} \"$@\"\\n' > $out/bin/${name}; chmod +x $out/bin/${name}" // { meta.mainProgram = name; };
          rustPlatform = target: {
            buildRustPackage =
              args:
              let
                a = only "buildRustPackage" [
                  "pname"
                  "version"
                  "src"
                  "cargoLock"
                  "doCheck"
                  "auditable"
                  "buildType"
                  "useNextest"
                  "nativeBuildInputs"
                  "buildPhase"
                  "installPhase"
                  "stripAllList"
                  "meta"
                  "env"
                  "cargoBuildFlags"
                  "cargoTestFlags"
                  "checkFeatures"
                  "allowedReferences"
                  "__structuredAttrs"
                ]
                  args;
                type = a.buildType or "release";
                # nixpkgs' hook says dev for debug, as cargo does.
                profile = "--profile ${if type == "debug" then "dev" else type}";
                flags = builtins.concatStringsSep " " ((if target == null then [ ] else [ "--target ${target}" ]) ++ a.cargoBuildFlags or [ ]);
                cargo = if a.auditable or false then "cargo auditable" else "cargo";
                dir = if target == null then "" else "${target}/";
                # What is compiled is kept between builds where a folder for it is given.
                kept = builtins.getEnv "STAND_IN_TARGET";
              in
              run "${a.pname}-${a.version}" (a.env or { }) ''
                cp -r ${a.src} build; chmod -R u+w build; cd build
                export CARGO_TERM_COLOR=never CARGO_TARGET_DIR=${if kept == "" then "$PWD/target" else kept}
                cmp Cargo.lock ${a.cargoLock.lockFile}
                ${a.buildPhase or "${cargo} build --locked ${profile} ${flags}"}
                ${if a.doCheck or true then "cargo test --locked ${profile} ${builtins.concatStringsSep " " (a.cargoTestFlags or [ ])} --features '${builtins.concatStringsSep " " (a.checkFeatures or [ ])}'" else ""}
                ${a.installPhase or "mkdir -p $out/bin; find $CARGO_TARGET_DIR/${dir}${type} -maxdepth 1 -type f -perm -u+x -exec cp {} $out/bin/ \\;"}
              '' // { nativeBuildInputs = a.nativeBuildInputs or [ ]; meta = a.meta or { }; };
          };
        in
        {
          inherit system;
          stdenv.hostPlatform = { inherit system; };
          musl.dev = placeholder "musl-gcc";
          rustPlatform = rustPlatform null;
          # rustup's musl target with Debian's musl-gcc stands for nixpkgs' static cross build
          pkgsStatic.rustPlatform = let p = rustPlatform "x86_64-unknown-linux-musl"; in {
            buildRustPackage = a: p.buildRustPackage (a // { env = (a.env or { }) // { CC_x86_64_unknown_linux_musl = "musl-gcc"; }; });
          };
          linkFarm = name: es: run name { } (builtins.concatStringsSep ";" (map (e: "mkdir -p $(dirname $out/${e}); ln -s ${es.${e}} $out/${e}") (builtins.attrNames es)));
          runCommand = name: env: script: run name (only "runCommand" [ "nativeBuildInputs" ] env) script;
          writeShellApplication =
            args:
            let a = only "writeShellApplication" [ "name" "text" "runtimeInputs" "runtimeEnv" "meta" "excludeShellChecks" ] args; in
            run a.name { passAsFile = [ "text" ]; text = "#!/usr/bin/env bash\nset -o errexit\nset -o nounset\nset -o pipefail\n${builtins.concatStringsSep "" (map (n: "export ${n}='${(a.runtimeEnv or { }).${n}}'\n") (builtins.attrNames (a.runtimeEnv or { })))}export PATH=\"${builtins.concatStringsSep ":" (map (i: "${i}/bin") (a.runtimeInputs or [ ]))}:$PATH\"\n${a.text}"; } ''
              mkdir -p $out/bin; cp "$textPath" $out/bin/${a.name}; chmod +x $out/bin/${a.name}; bash -n $out/bin/${a.name}
            '' // { meta.mainProgram = a.name; };
          writeShellScriptBin = name: text: run name { passAsFile = [ "text" ]; text = "#!/bin/sh\n${text}\n"; } "mkdir -p $out/bin; cp $textPath $out/bin/${name}; chmod +x $out/bin/${name}" // { meta.mainProgram = name; };
          check-jsonschema = placeholder "check-jsonschema";
          zizmor = placeholder "zizmor";
          mkShell = args: run "shell" (only "mkShell" [ "packages" ] args) "echo > $out";
          dockerTools.buildLayeredImage =
            args:
            let
              a = only "buildLayeredImage" [ "name" "tag" "compressor" "contents" "config" "created" "architecture" "extraCommands" "includeStorePaths" "maxLayers" "meta" "mtime" "uid" "gid" ] args;
            in
            run "${baseNameOf a.name}.tar" { passAsFile = [ "conf" ]; conf = builtins.toJSON { config = a.config or { }; name = "${a.name}:${a.tag}"; arch = if system == "aarch64-linux" then "arm64" else "amd64"; }; } ''
              mkdir root; (cd root; ${a.extraCommands or ""})
              tar -C root --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --mode=a+rX,go-w -cf layer.tar .
              python3 - "$confPath" <<'P'
              import hashlib, json, sys, os
              c = json.load(open(sys.argv[1])); d = hashlib.sha256(open("layer.tar", "rb").read()).hexdigest()
              os.mkdir("img"); os.mkdir("img/" + d); os.rename("layer.tar", f"img/{d}/layer.tar")
              j = json.dumps({"created": "1970-01-01T00:00:01Z", "architecture": c["arch"], "os": "linux", "config": c["config"], "rootfs": {"type": "layers", "diff_ids": ["sha256:" + d]}}, sort_keys=True)
              n = hashlib.sha256(j.encode()).hexdigest() + ".json"; open("img/" + n, "w").write(j)
              json.dump([{"Config": n, "RepoTags": [c["name"]], "Layers": [d + "/layer.tar"]}], open("img/manifest.json", "w"))
              P
              cd img; tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --mode=a+rX,go-w -cf $out *
            '';
        }
        // lib.genAttrs [ "kind" "kubectl" "docker-client" "cargo" "go" "clippy" "rustfmt" "cargo-deny" "nixpkgs-fmt" "deadnix" "git" "python3" "rustup" "shellcheck" "etcd" "kubernetes" "crane" "gzip" "cosign" "syft" ] placeholder
        // { kubernetes-helm = placeholder "helm"; };
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] pkgsFor;
    };
}
