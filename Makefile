# Every target works from a fresh clone with Go and make. PostgreSQL is found on the
# machine, or fetched; see internal/embeddedpg. What the tests run besides is in
# internal/testing/toolchain.

.DEFAULT_GOAL := help
.PHONY: help demo dev test test-pooled test-deps bench stream versus deliveries growth size analyst-data analyst-queries analyst-export hand-over reconcile-scale soak chaos drill lost web fuzz build release images

# What works through a pooler, besides receivers.
POOLED = api confirm dbcheck eventstore export feed fold hooks issueapi issuer reconcile recorder rollup story

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## run the whole loop once and show the recorded rows
	go run ./cmd/demo

dev: ## keep everything up, from PostgreSQL to the console, and print URLs, keys and commands to try
	go run ./cmd/demo --stay

test: ## run everything CI runs: formatting, vet, and all tests with the race detector
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run gofmt -w on: $$unformatted"; exit 1; }
	go vet ./...
	cd deploy/helm && go vet ./... && go test -timeout 15m ./...
	@UPCALL_TEST_MISSING=$$(go run ./cmd/testdeps names) || exit; export UPCALL_TEST_MISSING; \
	case " $$UPCALL_TEST_MISSING " in *" race "*) race= ;; *) race="-race " ;; esac; \
	echo "go test $$race-timeout 25m ./..."; go test $$race-timeout 25m ./...; status=$$?; \
	go run ./cmd/testdeps && exit $$status

test-pooled: ## run the tests of receivers and of the log with PgBouncer before PostgreSQL
	UPCALL_TEST_POOLER=1 go test -race -timeout 25m ./internal/receiver $(POOLED:%=./internal/%)
	UPCALL_TEST_POOLER=session go test -race -timeout 25m ./internal/receiver

test-deps: ## install what the tests run besides Go (on Debian, as root)
	@packages=$$(go run ./cmd/testdeps packages) || exit; test -z "$$packages" || { \
		test -e /usr/sbin/policy-rc.d || { trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
			printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$packages >/dev/null; }

bench: ## measure receiver and issuer against what a user would run instead, and an earlier commit, BEFORE
	go run ./cmd/bench rival $(if $(BEFORE),--before $(BEFORE))
	go run ./cmd/bench
	go test -run '^$$' -bench Issue ./internal/issue
	go test -run '^$$' -bench Serve ./internal/issueapi

stream: ## measure the replicated stream beside PostgreSQL, alone and with a synchronous standby
	go run ./cmd/bench stream
	go test -run '^$$' -bench Put ./internal/stream

versus: ## compare the CPU time of a callback with that of an earlier commit, BEFORE
	go run ./cmd/bench versus --before $(or $(BEFORE),HEAD~1)

deliveries: ## measure deliveries, what one bad endpoint costs the others, and what the log and its readers cost a callback
	go run ./cmd/bench deliver
	go run ./cmd/bench isolate
	go run ./cmd/bench log
	go run ./cmd/bench rollup

growth: ## measure the receiver with 0, 10 and 50 million rows (30 GB of disk), and without tokens
	go run ./cmd/bench growth --rows 0,10000000,50000000
	go run ./cmd/bench growth --rows 0,200000,1000000 --tokens-off

size: ## measure what a callback takes in PostgreSQL, and compute what so many a day need
	go run ./cmd/bench size

analyst-data: ## fill DATABASE_URL with a year of plausible uploads, ROWS=10000000 of them (20 GB of disk)
	go run ./cmd/bench analyst-data --rows $(or $(ROWS),10000000) --seed $(or $(SEED),1) $(if $(UNTIL),--until $(UNTIL))

analyst-queries: ## measure how long the questions of docs/queries.md take on DATABASE_URL
	go run ./cmd/bench queries

analyst-export: ## export DATABASE_URL in each format; measure memory, and compare sums with DuckDB's
	@test -n "$(DATABASE_URL)" || { echo "set DATABASE_URL"; exit 1; }
	UPCALL_TEST_EXPORT_URL="$(DATABASE_URL)" go test -count=1 -timeout 3h -v -run '^TestExport$$' ./internal/e2e

hand-over: ## hand over a month of EVENTS=3000000 events before it is dropped; measure memory, and compare sums with DuckDB's
	UPCALL_TEST_HANDOVER=$(or $(EVENTS),3000000) go test -count=1 -timeout 1h -v -run '^TestHandOver$$' ./internal/e2e

reconcile-scale: ## compare a bucket of ten million objects with as many rows, killed twice; measure memory and time
	go run ./cmd/bench reconcile --objects $(or $(OBJECTS),10000000)

soak: ## keep the receiver at full load for ten minutes and watch its memory
	go run ./cmd/bench soak

chaos: ## kill receivers, stop PostgreSQL and fail over under callbacks and deliveries; nothing is lost
	go run ./cmd/chaos loss --verbose
	go run ./cmd/chaos loss --verbose --others 2
	go run ./cmd/chaos rollup --verbose
	go run ./cmd/chaos --verbose

drill: ## ten faults a seed of three database nodes and two receivers on this machine (as root), with spools and with a replicated log; nothing is lost
	@mkdir -p bin; go build -o bin/drill ./cmd/drill
	for engine in spool fallback; do for seed in 1 2 3; do bin/drill --engine $$engine --seed $$seed --verbose || exit; done; done
	bin/drill --engine front --verbose
	for safeguard in barrier synchronous strict; do bin/drill --without $$safeguard --verbose || exit; done

lost: ## lose callbacks and notifications of UPLOADS=1000 uploads, also while the receiver is killed, and find all again
	UPCALL_TEST_LOST=$(or $(UPLOADS),1000) go test -count=1 -timeout 15m -v -run '^TestLostCallbacks$$' ./internal/e2e

web: ## upload FILES=1000 files on the page over a connection that answers 429 and 503 and breaks
	UPCALL_TEST_WEB_FILES=$(or $(FILES),1000) go test -count=1 -timeout 20m -v -run '^TestPageBadConnection$$' ./internal/e2e

fuzz: ## fuzz every parser, 20 seconds each
	@set -e; go list ./... | while read -r pkg; do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime 20s $$pkg; \
		done; done

build: ## build the programs into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/issuer ./cmd/receiver ./cmd/ossemu

release: ## build the archives, checksums and SBOMs of VERSION=v1.2.3 into dist/ (with GNU tar)
	deploy/release/build.sh $(or $(VERSION),$$(git describe --tags --always)) dist

images: ## build images of VERSION=v1.2.3 for amd64 and arm64, without a base, from archives in dist/ (with Docker and GNU tar)
	deploy/release/build.sh $(or $(VERSION),$$(git describe --tags --always)) dist linux/amd64 linux/arm64
	deploy/release/images.sh $(or $(VERSION),$$(git describe --tags --always)) dist
