#!/usr/bin/env bash
# Installs Chromium for the browser tests of the console, where it is missing and this user may. Never fails: without it those tests are
# skipped, with the reason.
set -u
for name in chromium-headless-shell chromium chromium-browser google-chrome; do command -v "$name" >/dev/null 2>&1 && exit 0; done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing Chromium for the tests of the console ..."
  # the shell without windows where the distribution has it: the tests take half of the processor time with it
  (apt-get update -qq && for name in chromium-headless-shell chromium; do
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$name" fonts-dejavu-core && break
  done) >/dev/null 2>&1 \
    || echo "Chromium could not be installed; the browser tests are skipped"
else
  echo "Chromium is missing and this user may not install it; the browser tests are skipped. To run them:"
  echo "  sudo apt-get install chromium-headless-shell"
fi
exit 0
