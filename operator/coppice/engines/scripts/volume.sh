# What every engine's scripts start with. COPPICE_DATA, COPPICE_RUN, COPPICE_LOAD, COPPICE_REASON, COPPICE_HOST and COPPICE_PORT come from the
# environment.
umask 077
export HOME="$COPPICE_RUN" TMPDIR="$COPPICE_RUN" TZ=UTC
volume=$COPPICE_DATA
cd "$HOME" || exit 1

# fail WORDS [WORDS OF A PROGRAM]: end, and say why. What a program says may quote rows, and is in the log alone; our own words are handed on. The first
# ones count: a step that failed may make the one fail that asked for it.
fail() {
  printf 'coppice: %s\n' "$1${2:+: $2}" >&2
  if [ -w "$COPPICE_REASON" ] && [ ! -s "$COPPICE_REASON" ]; then
    printf '%s\n' "$1" | cut -c 1-1000 >"$COPPICE_REASON"
  fi
  exit 1
}

# strange_files DIRECTORY NAME...: the entries of a directory that are none of these names.
strange_files() (
  where=$1
  shift
  for entry in "$where"/* "$where"/.[!.]* "$where"/..?*; do
    [ -e "$entry" ] || [ -L "$entry" ] || continue
    known=
    for name; do
      [ "${entry##*/}" != "$name" ] || known=yes
    done
    [ -n "$known" ] || printf '%s\n' "$entry"
  done
)

# begin: the first boot of a store. Everything is made beside the place where it will be ($stage), and one rename makes it so ($root).
begin() {
  [ ! -e "$root" ] || fail "the volume holds $root without its marker: it is damaged; restore it from a snapshot"
  strange=$(strange_files "$volume" "${stage##*/}" lost+found)
  [ -z "$strange" ] || fail "the volume is not empty and not a Coppice store; it holds $strange"
  rm -rf "$stage"
  mkdir -p "$stage"
}

# progress ENDING...: say, as a line of JSON, how many files of the initial load are in, of all whose names end so. Before the first file, and after each.
loaded_files=0
progress() (
  total=0
  for file in "$COPPICE_LOAD"/*; do
    for ending; do
      case $file in
      *"$ending")
        total=$((total + 1))
        break
        ;;
      esac
    done
  done
  printf '{"phase": "Loading", "done": %s, "total": %s}\n' "$loaded_files" "$total"
)

publish() {
  printf '%s\n' "${COPPICE_MARKER:-store}" >"$stage/marker"
  sync -f "$stage"
  mv "$stage" "$root"
  sync -f "$volume"
}

# expect_copy: a clone's volume is a copy of exactly the snapshot that it is to be of, and takes bytes.
expect_copy() {
  # A copy that has written all of its own bytes takes not even a lock file. The operator knows this exit code and gives the clone a new Pod,
  # for which the storage driver keeps some room.
  if ! problem=$({ head -c 262144 /dev/zero >"$root/room"; } 2>&1); then
    case $problem in
    *quota*)
      printf 'coppice: the volume has written all of its own bytes: %s\n' "$problem" >&2
      exit 122
      ;;
    esac
  fi
  rm -f "$root/room"
  [ -f "$root/marker" ] || fail "the volume is empty where a prepared copy was expected: delete the claim to have it made again"
  marker=$(cat "$root/marker")
  [ "$marker" = "$COPPICE_MARKER" ] || fail "the volume is a copy of another snapshot ($marker, not $COPPICE_MARKER)"
}
