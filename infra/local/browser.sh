#!/usr/bin/env bash
# Installs Chromium for the browser tests of the console, where it is missing and this user may. Never fails: without it those tests are
# skipped, with the reason.
set -u
for name in chromium chromium-browser google-chrome; do command -v "$name" >/dev/null 2>&1 && exit 0; done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing Chromium for the tests of the console ..."
  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core) >/dev/null 2>&1 \
    || echo "Chromium could not be installed; the browser tests are skipped"
else
  echo "Chromium is missing and this user may not install it; the browser tests are skipped. To run them: sudo apt-get install chromium"
fi
exit 0
