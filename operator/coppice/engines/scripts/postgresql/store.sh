# The server of a managed store, or of a mirror's copy.
: "${COPPICE_ADMIN_PASSWORD:?coppice: the administrator password is empty}"
if [ -n "${COPPICE_MARKER-}" ]; then
  [ -f "$root/marker" ] || fail "the volume is empty where a mirror's copy was expected: delete the claim to have it made again"
  marker=$(cat "$root/marker")
  [ "$marker" = "$COPPICE_MARKER" ] || fail "the volume is of another refresh ($marker, not $COPPICE_MARKER)"
elif [ ! -f "$root/marker" ]; then
  [ -z "$COPPICE_HAS_LOAD" ] || fail "the volume is empty although the load has run: it is not the volume of this store"
  begin
  create "${COPPICE_DATABASE:-$COPPICE_FALLBACK_DATABASE}"
  finish
fi
# A store's image can be changed: by an edit of its version, or by an administrator.
expect_major
serve
