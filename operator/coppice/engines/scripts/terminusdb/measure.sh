# measure: say how large the data are, and how many layers there are, as a line of JSON: at once and then from minute to minute, more seldom where to find
# out takes long. It ends with the server, whose process this shell becomes.
measure() {
  server=$$
  (
    while kill -0 "$server" 2>/dev/null; do
      begun=$(date +%s)
      bytes=$(du -sk "$root/db" 2>/dev/null | cut -f 1)
      layers=$(find "$root/db" -name '*.larch' 2>/dev/null | wc -l)
      printf '{"at": %s, "bytes": %s, "layers": %s}\n' "$begun" "$((${bytes:-0} * 1024))" "$((layers))"
      sleep "$((60 + 20 * ($(date +%s) - begun)))"
    done
  ) &
}
