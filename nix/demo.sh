# The README's story, with the images that Nix built; what else is deployed is the checkout's.
exec migrations-e2e demo "$@" --images "$IMAGES" --tools "$TOOLS"
