# The first boot of a TerminusDB store. Whatever logs in until the server starts for the first time does so offline; its password is nobody's.
create_store() {
  export TERMINUSDB_SERVER_DB_PATH="$stage/db"
  terminus "cannot make a store" store init "--key=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"
  terminus "cannot make the database $1" db create "$(path "$1")"
}
