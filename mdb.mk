# The same road on real recordings: MDB Drums, each of its seven tracks with audio judged by a model
# that was trained on the others. The dataset is not part of this repository (CC BY-NC-SA 4.0).

MDB_ROOT ?= ../shared/data/mdb_drums
MDB := build/mdb
MDB_EPOCHS := 20
MDB_TRACKS := 80sRock Britpop Reggae Rock Rockabilly Shadows Zeppelin
# Which other track chooses the epoch and the thresholds for each: the next one in the list.
MDB_VAL := $(wordlist 2,$(words $(MDB_TRACKS)),$(MDB_TRACKS)) $(firstword $(MDB_TRACKS))
val_of = $(word $(shell echo $(MDB_TRACKS) | tr ' ' '\n' | grep -nx $(1) | cut -d: -f1),$(MDB_VAL))

mdb: $(MDB)/report.json ## the road on MDB Drums: seven models, each judged on the track it never heard
	@$(RUN) show-report $<

$(MDB)/%/events.jsonl: | $(INSTALLED)
	$(RUN) ingest-mdb-drums $(MDB_ROOT) --output $@ --test-tracks MusicDelta_$* --val-tracks MusicDelta_$(call val_of,$*)

$(MDB)/%/readiness.json: $(MDB)/%/events.jsonl
	$(RUN) run-readiness-checks --checks health --health-events $< --health-max-unknown-labels 0 \
	  --health-max-duplication-rate 0.005 --health-split-isolation session --report $@

$(MDB)/%/store/metadata.json: $(MDB)/%/events.jsonl
	$(RUN) build-training-dataset $< $(@D) --audio-root $(MDB_ROOT) --skip-missing-audio --force

$(MDB)/%/models/best_drum_classifier.pth: $(MDB)/%/store/metadata.json $(MDB)/%/readiness.json
	$(RUN) train-classifier --dataset $(<D) --readiness $(MDB)/$*/readiness.json --preset fast \
	  --epochs $(MDB_EPOCHS) --device cpu --output $(@D)

$(MDB)/%/predictions.jsonl: $(MDB)/%/models/best_drum_classifier.pth
	$(RUN) predict --model $< --events $(MDB)/$*/store/splits/test.jsonl --audio-root $(MDB_ROOT) --output $@

$(MDB)/report.json: $(MDB_TRACKS:%=$(MDB)/%/predictions.jsonl)
	cat $(MDB_TRACKS:%=$(MDB)/%/store/splits/test.jsonl) > $(MDB)/truth.jsonl
	cat $^ > $(MDB)/predictions.jsonl
	$(RUN) bootstrap-eval --ground-truth $(MDB)/truth.jsonl --predictions $(MDB)/predictions.jsonl \
	  --report $@ --html-output $(MDB)/report.html > /dev/null

.PRECIOUS: $(MDB)/%/events.jsonl $(MDB)/%/readiness.json $(MDB)/%/store/metadata.json \
  $(MDB)/%/models/best_drum_classifier.pth $(MDB)/%/predictions.jsonl
