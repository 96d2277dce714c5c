# A clone's server, on a copy of a prepared volume.
: "${COPPICE_ADMIN_PASSWORD:?coppice: the administrator password is empty}"
expect_copy
note_reboot
serve
