# A clone's server, on a copy of a prepared volume.
: "${COPPICE_ADMIN_PASSWORD:?coppice: the administrator password is empty}"
expect_copy
known_version
check_labels
if [ -n "$COPPICE_NEW_BRANCH" ] && [ ! -f "$root/armed" ]; then
  database=$(path "$COPPICE_DATABASE")
  terminus "the branches of $COPPICE_DATABASE are not to be listed" doc get "$database/local/_commits" --type=Branch --as_list
  values name | grep -qx "$COPPICE_NEW_BRANCH" ||
    terminus "cannot make the branch $COPPICE_NEW_BRANCH" branch create "$database/local/branch/$COPPICE_NEW_BRANCH" "--origin=$database/local/commit/$COPPICE_HEAD"
fi
serve
