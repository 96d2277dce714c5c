# A managed store's server.
: "${COPPICE_ADMIN_PASSWORD:?coppice: the administrator password is empty}"
if [ ! -f "$root/marker" ]; then
  [ -z "$COPPICE_HAS_LOAD" ] || fail "the volume is empty although the load has run: it is not the volume of this store"
  begin
  create "${COPPICE_DATABASE:-$COPPICE_FALLBACK_DATABASE}"
  finish
fi
serve
