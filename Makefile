# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Ansible insists on UTF-8, and a fresh machine has no such locale set
PYTHON := env LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 .venv/bin/python
# tgtd and libvirtd want root
ROOT := $(if $(filter 0,$(shell id -u)),,sudo) $(PYTHON)

.DEFAULT_GOAL := help
.PHONY: help demo demo-ceph demo-stop lab lab-stop test test-lab unit build install-check test-matrix bench bench-ceph bench-images bench-backups bench-copies bench-lab campaign changelog requirements clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: ## the whole walk on this machine, in a minute; KEEP=1 leaves it running
	@tests/setup.sh demo
	@$(ROOT) -m tests.demo $(if $(KEEP),--keep)

demo-ceph: ## the same with a volume in a Ceph cluster; KEEP=1 leaves it running
	@tests/setup.sh demo-ceph
	@$(ROOT) -m tests.demo --ceph $(if $(KEEP),--keep)

demo-stop: ## stops what KEEP=1 left running
	@$(ROOT) -m tests.demo --stop

lab: ## three virtual machines with LVM, LIO, open-iscsi and libvirt, to play with
	@tests/setup.sh test
	@$(ROOT) -m tests.rig.lab up

lab-stop: ## ends what `make lab` left running
	@$(ROOT) -m tests.rig.lab down

test: ## everything that can fail; ONLY="unit sanity" runs some of it
	@tests/setup.sh test
	@$(ROOT) -m tests.run $(ONLY)

test-lab: ## the part of `make test` that runs in the lab
	@tests/setup.sh test
	@$(ROOT) -m tests.run lab lab-play

unit: ## the fast part of `make test`
	@tests/setup.sh test
	@$(PYTHON) -m pytest tests/unit -q

build: ## the collection's tarball, into dist/
	@tests/setup.sh demo
	@$(PYTHON) -m tests.run.tarball build

install-check: ## builds it, installs it off line somewhere else and looks it over
	@tests/setup.sh demo
	@$(PYTHON) -m tests.run.tarball build check

test-matrix: ## unit tests and sanity on every supported ansible-core this machine has a Python for
	@tests/setup.sh test
	@$(PYTHON) -m tests.run.matrix

bench: ## the walk for 1, 10, 50 and 100 attachments, timed
	@tests/setup.sh test
	@$(ROOT) -m tests.bench

bench-ceph: ## the same with volumes in a Ceph cluster, beside rbd and virsh
	@tests/setup.sh test
	@$(ROOT) -m tests.bench --ceph

bench-images: ## volumes from images and images of volumes, beside qemu-img
	@tests/setup.sh test
	@$(ROOT) -m tests.bench.images

bench-backups: ## backups and their restoration, beside restic by hand
	@tests/setup.sh test
	@$(ROOT) -m tests.bench.backups

bench-copies: ## clones and images of thick volumes on a real kernel, beside dd and qemu-img
	@tests/setup.sh test
	@$(ROOT) -m tests.bench.copies

bench-lab: ## the same on real kernels, beside targetcli, cinder-rtstool's way and os-brick: takes an hour
	@tests/setup.sh test
	@$(ROOT) -m tests.bench.lab

campaign: ## faults, silence, races and kills in the lab: what is too long for `make test`
	@tests/setup.sh test
	@$(ROOT) -m pytest tests/campaign tests/contract tests/lab -m long -v -p tests.run.honest -p no:cacheprovider -p no:ansible

changelog: ## CHANGELOG.md from changelogs/fragments, for the version in galaxy.yml
	@tests/setup.sh test
	@env LC_ALL=C.UTF-8 .venv/bin/antsibull-changelog release --update-existing --reload-plugins

requirements: ## resolves tests/requirements*.in into the pinned .txt files
	@for set in requirements-demo requirements; do \
	    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	        --upgrade tests/$$set.in --output-file tests/$$set.new && \
	    { echo "# Made by \`make requirements\` from $$set.in; not edited by hand"; cat tests/$$set.new; } \
	        > tests/$$set.txt && rm tests/$$set.new || exit 1; \
	done

clean: ## takes away what these targets made (system packages stay)
	@[ ! -d .cache/lab/labs ] || $(ROOT) -m tests.rig.lab down all
	rm -rf .venv .cache .ansible dist tests/output .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
