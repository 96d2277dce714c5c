# What the two halves of a mirror's refresh share. All that they print to standard output are lines of JSON; see MirrorWorkloads in base.py.
kept=$volume/.mirror
dump=$kept/dump
log=$kept/log
server=

# tell PHASE [DONE TOTAL]
tell() {
  printf '{"phase": "%s"%s}\n' "$1" "${3:+, \"done\": $2, \"total\": $3}"
}

# names TEXT: what of a text can stand in JSON; names of things have no need of more.
names() {
  printf '%s' "$1" | tr '\n\t"' '   ' | tr -cd 'A-Za-z0-9_ .,:()-' | cut -c 1-300
}

# give_up REASON [NAMES]: what was made is half, and its bytes are better used.
give_up() {
  trap - EXIT
  if [ -n "$server" ]; then
    kill -QUIT "$server" 2>/dev/null || true
    wait "$server" || true
  fi
  rm -rf "$kept" "$stage"
  printf '{"failed": "%s", "detail": "%s"}\n' "$1" "$(names "${2-}")"
  exit 1
}

# fail_with REASON FILE: give up for what a program has said.
fail_with() {
  said=$(words "$2")
  printf 'coppice: %s: %s\n' "$1" "$said" >&2
  if grep -q 'No space left on device\|Disk quota exceeded' "$2"; then
    give_up VolumeFull
  fi
  give_up "$1"
}

# watched PHASE TOTAL PROGRAM ARGUMENT...: run a program that says in its log what it is at, and tell how many tables it has done. It may be done before
# it is looked at for the first time.
watched() {
  phase=$1 total=$2 told=0
  shift 2
  tell "$phase" 0 "$total"
  # The program opens its log after it has begun: until then there would be none to look into, or an earlier one.
  : >"$log"
  "$@" >/dev/null 2>"$log" &
  program=$!
  while kill -0 "$program" 2>/dev/null; do
    count=$(grep -c "$COPPICE_TABLE_DONE" "$log" || true)
    [ "$count" = "$told" ] || tell "$phase" "$count" "$total"
    told=$count
    sleep 1
  done
  wait "$program"
}

# has_marker DIRECTORY: it was finished by this very refresh.
has_marker() {
  [ -f "$1/marker" ] && [ "$(cat "$1/marker")" = "$COPPICE_MARKER" ]
}

refuse_strangers() {
  strange=$(strange_files "$volume" "${stage##*/}" "${kept##*/}" lost+found)
  [ -z "$strange" ] || fail "the volume is not a new one; it holds $strange"
}
