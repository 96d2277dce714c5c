# A clone's server, on a copy of a prepared volume.
: "${COPPICE_ADMIN_PASSWORD:?coppice: the administrator password is empty}"
[ -z "$COPPICE_OTHER_BRANCH" ] || fail "a clone of TerminusDB opens on the branch main, not on $COPPICE_OTHER_BRANCH"
expect_copy
known_version
check_labels
serve
