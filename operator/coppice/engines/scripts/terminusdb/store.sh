# A managed store's server.
: "${COPPICE_ADMIN_PASSWORD:?coppice: the administrator password is empty}"
known_version
if [ ! -f "$root/marker" ]; then
  [ -z "$COPPICE_HAS_LOAD" ] || fail "the volume is empty although the load has run: it is not the volume of this store"
  begin
  create_store "${COPPICE_DATABASE:-$COPPICE_FALLBACK_DATABASE}"
  publish
  export TERMINUSDB_SERVER_DB_PATH="$root/db"
fi
check_labels
arm
measure
serve
