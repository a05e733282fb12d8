# The scenarios, with the images that Nix built; what else is deployed is the checkout's.
exec migrations-e2e test "$@" --images "$IMAGES" --tools "$TOOLS"
