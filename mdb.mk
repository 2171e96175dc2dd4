# The same road on real recordings: MDB Drums, each of its seven tracks with audio judged by a model
# that never heard it. Five tracks are too few to train on, so a first model is trained on performances
# of the Groove MIDI dataset, rendered with the built-in synthesiser, and goes on with the tracks.
# Neither dataset is part of this repository (MDB Drums: CC BY-NC-SA 4.0; Groove: CC BY 4.0).

MDB_ROOT ?= ../shared/data/mdb_drums
GROOVE_ROOT ?= ../shared/data/groove
MDB := build/mdb
MDB_SEED := 7
MDB_TRACKS := 80sRock Britpop Reggae Rock Rockabilly Shadows Zeppelin
# What the first model is trained on, and what the others are reminded of it by: other kits, rooms and
# stretches. Two drummers of ten are kept for validation; the official test takes are not touched.
RENDER := --splits train,val --val-drummer drummer3 --val-drummer drummer6 --excerpt-s 10
MDB_RENDER := --kits 60
MDB_REMIND := --kits 40 --limit 100
MDB_FIRST_EPOCHS := 4
MDB_EPOCHS := 3
# Equalisation as strong as the default preset's: here is more to learn from than a demo has.
MDB_TRAIN := --preset fast --device cpu --seed $(MDB_SEED) --set augment.eq_db=6
# Real and rendered clips are drawn equally often.
MDB_WEIGH := --group-field source_set --exponent 1 --max-events-per-group 1000000 --min-weight 1e-9 --max-weight 1
# Which other track helps to choose the epoch and the thresholds for each: the next one in the list.
MDB_VAL := $(wordlist 2,$(words $(MDB_TRACKS)),$(MDB_TRACKS)) $(firstword $(MDB_TRACKS))
val_of = $(word $(shell echo $(MDB_TRACKS) | tr ' ' '\n' | grep -nx $(1) | cut -d: -f1),$(MDB_VAL))
MDB_MIDI := $(VENV)/.installed-midi

# What must be beaten on the same clips: a logistic regression on seven band energies, fitted on the same
# five tracks; the same fitted on the reminder as well; and the label set that is most frequent there.
FLOOR_tracks := --source mdb_drums
FLOOR_all :=
FLOOR_frequent := --source mdb_drums --floor most_frequent
FLOORS := tracks all frequent
MDB_JUDGE = $(RUN) bootstrap-eval --ground-truth $(MDB)/truth.jsonl --predictions $(MDB)/predictions.jsonl --max-macro-f1-drop 0

mdb: $(MDB)/report.json ## the road on MDB Drums: seven models, each judged on the track it never heard (30 minutes of processor time)
	$(SAY) 'Seven models beside a logistic regression fitted on the same tracks'
	@$(MDB_JUDGE) --baseline-predictions $(MDB)/floor_tracks.jsonl
	$(SAY) '… beside one fitted on the rendered performances as well'
	@$(MDB_JUDGE) --baseline-predictions $(MDB)/floor_all.jsonl --metrics macro_f1,micro_f1 | grep -E '^(class|m[ai]cro)'
	$(SAY) '… beside the most frequent label set'
	@$(MDB_JUDGE) --baseline-predictions $(MDB)/floor_frequent.jsonl --metrics macro_f1,micro_f1 | grep -E '^(class|m[ai]cro)'
	@echo; echo "Page: $(MDB)/report.html"

$(VENV)/.installed-midi: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[midi]'
	@touch $@

# What each root must hold, with what to do where it does not.
$(MDB_ROOT)/annotations $(GROOVE_ROOT)/info.csv:
	@echo "make mdb: $@ is not there. It needs both datasets:" >&2
	@echo "  MDB Drums: https://github.com/CarlSouthall/MDBDrums, named by MDB_ROOT=" >&2
	@echo "  Groove MIDI (the version without audio will do): https://magenta.tensorflow.org/datasets/groove, named by GROOVE_ROOT=" >&2
	@exit 2

# Performances: every stroke at its own time, with the pedal as openness.
$(MDB)/groove.jsonl: | $(MDB_MIDI) $(GROOVE_ROOT)/info.csv $(MDB_ROOT)/annotations
	$(RUN) ingest-groove $(GROOVE_ROOT) --merge-ms 0 --output $@.raw
	$(RUN) normalize-openness --events $@.raw --output $@
	rm $@.raw

$(MDB)/first/data/metadata.json: $(MDB)/groove.jsonl
	$(RUN) render-performances $< $(@D) $(RENDER) $(MDB_RENDER) --seed $(MDB_SEED) --force

$(MDB)/remind/metadata.json: $(MDB)/groove.jsonl
	$(RUN) render-performances $< $(@D) $(RENDER) $(MDB_REMIND) --seed $(shell expr $(MDB_SEED) + 1) --force

$(MDB)/first/events.jsonl: $(MDB)/first/data/metadata.json
	cp $(<D)/annotations/events.jsonl $@

# Each track's events, the other tracks', and the reminder.
$(MDB)/%/events.jsonl: $(MDB)/remind/metadata.json | $(INSTALLED) $(MDB_ROOT)/annotations
	@mkdir -p $(@D)
	$(RUN) ingest-mdb-drums $(MDB_ROOT) --output $(@D)/tracks.jsonl --test-tracks MusicDelta_$* --val-tracks MusicDelta_$(call val_of,$*)
	$(RUN) merge-manifests --input $(@D)/tracks.jsonl --input $(<D)/annotations/events.jsonl --output $@

# What no split may share. MDB Drums does not say which of its tracks share a kit.
APART := session
$(MDB)/first/readiness.json: APART := session,kit,drummer

$(MDB)/%/readiness.json: $(MDB)/%/events.jsonl
	$(RUN) run-readiness-checks --checks health --health-events $< --health-max-unknown-labels 0 \
	  --health-max-duplication-rate 0.005 --health-split-isolation $(APART) --report $@

$(MDB)/first/store/metadata.json: $(MDB)/first/events.jsonl
	$(RUN) build-training-dataset $< $(@D) --audio-root $(MDB)/first/data --force

$(MDB)/%/store/metadata.json: $(MDB)/%/events.jsonl
	$(RUN) build-training-dataset $< $(@D) --audio-root $(MDB_ROOT) \
	  --audio-root-map groove_rendered=$(MDB)/remind --skip-missing-audio --force

$(MDB)/first/models/best_drum_classifier.pth: $(MDB)/first/store/metadata.json $(MDB)/first/readiness.json
	$(RUN) train-classifier --dataset $(<D) --readiness $(MDB)/first/readiness.json $(MDB_TRAIN) \
	  --epochs $(MDB_FIRST_EPOCHS) --output $(@D)

$(MDB)/%/weights.json: $(MDB)/%/store/metadata.json
	$(RUN) derive-sampling-weights $(<D)/splits/train.jsonl $(MDB_WEIGH) --output $@

$(MDB)/%/models/best_drum_classifier.pth: $(MDB)/%/store/metadata.json $(MDB)/%/readiness.json \
    $(MDB)/%/weights.json $(MDB)/first/models/best_drum_classifier.pth
	$(RUN) train-classifier --dataset $(<D) --readiness $(MDB)/$*/readiness.json $(MDB_TRAIN) --lr 5e-4 \
	  --init-from $(MDB)/first/models/best_drum_classifier.pth --sampling-weights $(MDB)/$*/weights.json \
	  --epochs $(MDB_EPOCHS) --output $(@D)

$(MDB)/%/predictions.jsonl: $(MDB)/%/models/best_drum_classifier.pth
	$(RUN) predict --model $< --events $(MDB)/$*/store/splits/test.jsonl --audio-root $(MDB_ROOT) --output $@

define floor_rule
$(MDB)/%/floor_$(1).jsonl: $(MDB)/%/models/best_drum_classifier.pth
	$$(RUN) predict-floor --dataset $(MDB)/$$*/store --model $$< $(FLOOR_$(1)) --output $$@

$(MDB)/floor_$(1).jsonl: $(MDB_TRACKS:%=$(MDB)/%/floor_$(1).jsonl)
	cat $$^ > $$@
endef
$(foreach floor,$(FLOORS),$(eval $(call floor_rule,$(floor))))

$(MDB)/predictions.jsonl: $(MDB_TRACKS:%=$(MDB)/%/predictions.jsonl)
	cat $(MDB_TRACKS:%=$(MDB)/%/store/splits/test.jsonl) > $(MDB)/truth.jsonl
	cat $^ > $@

$(MDB)/report.json: $(MDB)/predictions.jsonl $(FLOORS:%=$(MDB)/floor_%.jsonl)
	$(MDB_JUDGE) --baseline-predictions $(MDB)/floor_tracks.jsonl --report $@ --html-output $(MDB)/report.html > /dev/null

# Files are written whole or not at all, so that an interrupted make need not delete them.
.PRECIOUS: $(MDB)/first/models/best_drum_classifier.pth $(MDB)/%/events.jsonl $(MDB)/%/readiness.json $(MDB)/%/store/metadata.json $(MDB)/%/weights.json \
  $(MDB)/%/models/best_drum_classifier.pth $(MDB)/%/predictions.jsonl $(foreach floor,$(FLOORS),$(MDB)/%/floor_$(floor).jsonl)
