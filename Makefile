# gon-edge: everything there is to run, with a virtual environment of its own.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

# Matrices here are small: a second BLAS thread only waits, and beside busy cores a fit takes ten times as long.
export OPENBLAS_NUM_THREADS ?= 1

# Containers often set it.  Tests start a thousand processes, and each would compile gon-edge for itself.
unexport PYTHONDONTWRITEBYTECODE

# PyPI's torch for x86-64 comes with 3 GB of CUDA that no test uses; PyTorch's own index, where it answers, has it without.
CPU_INDEX := https://download.pytorch.org/whl/cpu/

.DEFAULT_GOAL := help
.PHONY: help run test test-all e2e check fuzz soak chaos bench bench-memory bench-live bench-fleet chaos-fleet table decisions alert-table weeks docs deb e2e-system e2e-pages wheels image audit sbom clean

help:  ## show this
	@echo "make TARGET, one of:"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo "PYTHON=/path/to/python3 chooses the interpreter (3.11 or later)."

run: $(VENV)/.make-run  ## install and show everything on this machine; ARGS="--fast --duration 120"
	@$(BIN)/gon-edge demo $(ARGS)

# tests/conftest.py says how many workers.  worksteal keeps the tests of a file together, and with them its servers and
# models, until one worker has nothing left to do.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test: $(VENV)/.make-dev  ## install what tests need and run all that are quick, with a real broker too; 7 minutes
	$(PYTEST) -m 'not slow' $(ARGS)

test-all: $(VENV)/.make-dev  ## the slow ones as well: long runs, killed processes, real data, peers; 11 minutes
	$(PYTEST) $(ARGS)

e2e: $(VENV)/.make-dev  ## only the end-to-end tests, against real servers
	$(PYTEST) tests/e2e $(ARGS)

check: $(VENV)/.make-dev  ## lint, format, types, direction of imports, house rules
	$(BIN)/ruff check gon_edge tools tests
	$(BIN)/ruff format --check gon_edge tools tests
	MYPY_NUM_WORKERS=2 $(BIN)/mypy  # the longest of these; releases before 2 take no notice
	$(BIN)/lint-imports
	$(BIN)/python tools/check_style.py gon_edge tools

# For example: make fuzz TARGETS="payloads topics" RUNS=100000
RUNS ?= 1000000
fuzz: $(VENV)/.make-fuzz  ## a million mutated inputs (RUNS=) for each reader of foreign bytes (TARGETS=); hours
	$(BIN)/python tools/fuzz.py --runs $(RUNS) $(if $(TARGETS),--targets $(TARGETS)) $(ARGS)

# For example: sudo make soak MINUTES=12
MINUTES ?= 30
soak: $(VENV)/.make-run  ## the daemon under everything that goes wrong, every row accounted for; root cuts network and disk
	$(BIN)/python tools/soak.py --minutes $(MINUTES) $(ARGS)

# For example: sudo make chaos MINUTES=10 SEED=7
SEED ?= 0
chaos: $(VENV)/.make-run  ## the daemon under attacks drawn at random by SEED=; rows, alerts and memory accounted for at the end
	$(BIN)/python tools/soak.py --random --minutes $(MINUTES) --seed $(SEED) $(ARGS)

bench: $(VENV)/.make-dev  ## how fast one window is scored; what the daemon sustains, in which memory; how soon it is there
	$(BIN)/python tools/bench_scoring.py
	$(BIN)/python tools/bench_instructions.py
	$(BIN)/python tools/bench_messages.py
	$(BIN)/python tools/bench_daemon.py
	$(BIN)/python tools/bench_streams.py
	$(BIN)/python tools/bench_start.py

bench-memory: $(VENV)/.make-dev  ## memory and duration of training, for several sizes, beside torch; 5 minutes
	$(BIN)/python tools/bench_memory.py $(ARGS)

bench-live: $(VENV)/.make-dev  ## what training costs the stream that is scored meanwhile; 3 minutes
	$(BIN)/python tools/bench_retrain_live.py $(ARGS)

bench-fleet: $(VENV)/.make-dev  ## a fleet on NATS: every row, latency, 1, 2 and 4 workers, memory, takeovers; 10 minutes
	$(BIN)/python tools/bench_fleet.py $(ARGS)

chaos-fleet: $(VENV)/.make-dev  ## a fleet whose workers, servers, bridge and disk fail, and what became of every row; 10 minutes
	$(BIN)/python tools/chaos_fleet.py $(ARGS)

table: $(VENV)/.make-dev  ## the table of detection results; needs the data sets
	$(BIN)/python tools/reproduce_table.py $(ARGS)

# Every development set, each recorded run alone; peers at the best of three risks; hours for all methods.
decisions: $(VENV)/.make-dev  ## the table of alerts: faults found, false alerts, time in alarm; needs the data sets
	$(BIN)/python tools/reproduce_table.py --protocol decisions --sets machines $(ARGS)

# A folder a commit: it goes on where it stopped, and shows no figure of another commit.
alert-table: OUT = build/decisions/$(shell git rev-parse --short HEAD)
alert-table: $(VENV)/.make-dev  ## gon-edge's alerts measured at this commit, five seeds, and its rows in docs and README
	$(BIN)/python tools/reproduce_table.py --protocol decisions --sets machines --methods gon-edge --out $(OUT) $(ARGS)
	$(BIN)/python tools/results.py --cells $(OUT)/cells-decisions.jsonl

# ARGS=--quick: one seed and two weeks of each, a quarter of an hour; all of it takes hours.
weeks: $(VENV)/.make-dev  ## made machines through the whole daemon in virtual time: false alerts a week, faults found
	$(BIN)/python tools/weeks.py $(ARGS)

docs: $(VENV)/.make-docs  ## the documentation as a site, build/site/index.html; any broken link is an error
	$(BIN)/python tools/make_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet -f tools/mkdocs.yml

deb: $(VENV)/.make-venv  ## the Debian package, dist/gon-edge_VERSION_all.deb; WHEELS=FOLDER builds it offline
	PYTHON=$(BIN)/python tools/build_deb.sh dist $(WHEELS)

# For example: sudo make e2e-system SUITE=trixie
CACHE ?= /var/cache/gon-edge-e2e
SUITE ?= bookworm
e2e-system: deb  ## boot a Debian, install the package and see that it serves; needs root, mmdebstrap, systemd-container
	$(BIN)/python tools/e2e_system.py dist/gon-edge_*_all.deb --cache $(CACHE) --suite $(SUITE)

e2e-pages: $(VENV)/.make-run  ## attacks on an emulated arm64 with pages of 16 KiB, under the unit's memory limits; needs qemu-system-arm
	PYTHON=$(BIN)/python tools/e2e_pages.sh

wheels: $(VENV)/.make-venv  ## load what the container image holds, for arm64 and x86-64, into build/wheels
	for arch in aarch64 x86_64; do \
	  $(BIN)/pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
	    --python-version 3.11 --implementation cp \
	    $$(for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do echo --platform $${tag}_$$arch; done) \
	    --dest build/wheels -r deploy/container/requirements.txt || exit 1; \
	done

# Another builder, base or platform: make image BUILDER="buildah bud --format docker" BASE=... PLATFORM=linux/amd64
BUILDER ?= docker buildx build --load
PLATFORM ?= linux/arm64
image: wheels  ## the container image gon-edge, for PLATFORM (linux/arm64), by docker or BUILDER
	$(BUILDER) --platform $(PLATFORM) $(if $(BASE),--build-arg BASE=$(BASE)) -f Dockerfile.arm64 -t gon-edge .

# Where no index has pip-audit either, that is said, and is no failure: nobody can mend it here.
audit: $(VENV)/.make-venv  ## known vulnerabilities of all that is pinned, and of Debian's packages, where a service answers
	@if $(BIN)/python -c 'import pip_audit' 2>/dev/null \
	  || $(BIN)/pip install --quiet --disable-pip-version-check 'pip-audit>=2.10'; then \
	  $(BIN)/python tools/audit.py $(ARGS); \
	else echo "NOTHING WAS AUDITED: pip-audit cannot be installed from here"; fi
	@$(BIN)/python tools/audit_debian.py

sbom: $(VENV)/.make-venv  ## the bill of materials of package and image, dist/gon-edge.cdx.json (CycloneDX)
	$(BIN)/python tools/make_sbom.py dist/gon-edge.cdx.json

clean:  ## remove the virtual environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find gon_edge tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.make-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "gon-edge needs Python 3.11 or later as $(PYTHON). On Debian 12 or Raspberry Pi OS 12, type:"; \
	  echo "  sudo apt install python3 python3-venv"; \
	  echo "or name another interpreter: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.11"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. Type:"; \
	  echo "  sudo apt install python3-venv"; exit 1; } >&2
	$(PYTHON) -m venv $(VENV)
	@touch $@

# amqtt is the broker of the demonstration where there is no mosquitto.
$(VENV)/.make-run: $(VENV)/.make-venv setup.cfg pyproject.toml
	@echo "installing gon-edge into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check \
	  -e ".$$(PATH="$$PATH:/usr/sbin" command -v mosquitto >/dev/null || echo '[demo]')"
	@sync  # else the disk writes this half a minute later, and the demonstration takes it for a fault
	@touch $@

$(VENV)/.make-dev: $(VENV)/.make-venv setup.cfg pyproject.toml
	@echo "installing what tests need into $(VENV) (torch is the largest, 200 MB and more)"
	@index=$$($(BIN)/python -c "import urllib.request as u; u.urlopen('$(CPU_INDEX)torch/', timeout=5)" 2>/dev/null \
	  && echo "--extra-index-url $(CPU_INDEX)"); \
	$(BIN)/pip install --quiet --disable-pip-version-check $$index torch==2.13.0 -e '.[dev,demo]'
	@# The oracle of VUS asks for TensorFlow, which its metrics never import; pandas, which they do, is in the extra.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps vus==0.0.6
	@touch $@

$(VENV)/.make-fuzz: $(VENV)/.make-venv setup.cfg pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@touch $@

$(VENV)/.make-docs: $(VENV)/.make-venv setup.cfg pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@
