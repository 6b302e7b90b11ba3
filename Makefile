# Everything a newcomer needs: `make demo` shows it, `make test` proves it.

.PHONY: help demo test torture fuzz lint bench peers clean

build = cargo build --locked --workspace --bins

# The targets, one a line. `make` alone shows this.
help:
	@awk '/^# / { said = substr($$0, 3) } /^$$/ { said = "" } \
	    /^[a-z]+:/ && said { printf "make %-8s %s\n", substr($$1, 1, length($$1) - 1), said; said = "" }' Makefile

# The main job end to end on software stand-ins for the hardware. KEEP=1 leaves it running to look around in.
demo:
	@tests/peers/install.sh --no-nss '$(build)'
	@target/debug/demo $(if $(KEEP),--keep)

# Every test, against the real parts.
test:
	@tests/peers/install.sh '$(build) && cargo test --locked --workspace --no-run'
	@scripts/test.sh

# keyd killed N times under load, where `make test` kills it some 200 times. SEED repeats the choices of an earlier run.
torture: export KEYD_CRASH_KILLS = $(or $(N),2000)
torture:
	@tests/peers/install.sh '$(build)'
	@$(if $(SEED),KEYD_CRASH_SEED=$(SEED)) cargo test --locked -p system --test system crash:: -- --nocapture

# Every parser of bytes from outside, for SECONDS each.
fuzz:
	@scripts/fuzz.sh $(SECONDS)

# Formatting, clippy, dependencies, shell scripts, units.
lint:
	@scripts/lint.sh

# Figures of a release build against the bare parts.
bench:
	@tests/peers/install.sh
	@scripts/bench.sh

# The real parts alone.
peers:
	@tests/peers/install.sh

# All that was built, and the real parts.
clean:
	cargo clean
