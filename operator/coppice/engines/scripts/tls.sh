# TLS before a server that has none. A certificate that was renewed is taken over within half a minute, and no connection is cut by it; with one that stunnel
# cannot read it goes on with the one before.
umask 077
cd "$COPPICE_RUN" || exit 1
cat >stunnel.conf <<END
foreground = yes
pid =
syslog = no
debug = warning
[server]
accept = $COPPICE_HOST:$COPPICE_PORT
connect = 127.0.0.1:$COPPICE_SERVER_PORT
cert = $COPPICE_CERTIFICATE/tls.crt
key = $COPPICE_CERTIFICATE/tls.key
sslVersionMin = TLSv1.2
END
sum_of_files() {
  cat "$COPPICE_CERTIFICATE/tls.crt" "$COPPICE_CERTIFICATE/tls.key" | cksum
}

known=$(sum_of_files)
stunnel stunnel.conf &
proxy=$!
trap 'kill "$proxy" 2>/dev/null || true; wait "$proxy" || true; exit 0' TERM INT
while kill -0 "$proxy" 2>/dev/null; do
  # The shell hears a signal at once only while it waits for what runs beside it.
  sleep "${COPPICE_RENEWAL_SECONDS:-30}" &
  wait "$!" || true
  now=$(sum_of_files) || continue
  if [ "$now" != "$known" ]; then
    known=$now
    kill -HUP "$proxy" 2>/dev/null || true
  fi
done
printf 'coppice: stunnel has ended\n' >&2
exit 1
