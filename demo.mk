# The demo: the whole road, on a drum dataset from the built-in synthesiser. Each step is one command
# that works by hand as well; a step is skipped while its output is newer than what it is made from.

DEMO := build/demo
PAGES := reports/demo
GATES := configs/gates_demo.toml
SEED := 7
SESSIONS := 36
DRUMMERS := 10
KITS := 14
DURATION_S := 30
EPOCHS := 20
MINUTES := 4.0
MIN_CLASS_COUNT := 200
INSTALLED := $(VENV)/.installed

DATA := $(DEMO)/data
EVENTS := $(DATA)/annotations/events.jsonl
STORE := $(DEMO)/store
TEST := $(STORE)/splits/test.jsonl
MODEL := $(DEMO)/models/best_drum_classifier.pth
PREDICTIONS := $(DEMO)/predictions

HEALTH := --health-events $(EVENTS) --health-dataset-metadata $(DATA)/metadata.json \
  --health-max-duplication-rate 0.005 --health-min-class-count $(MIN_CLASS_COUNT) --health-max-unknown-labels 0 \
  --health-require-techniques-file configs/health_required_techniques_prod.txt \
  --health-split-isolation session,drummer,kit
ALIGNMENT = $(foreach manifest,$(wildcard $(DATA)/sessions/session_*.json),--alignment-manifest $(manifest))
SAY = @printf '\n\033[1m%s\033[0m\n' # a heading for the step that follows

demo: $(PAGES)/readiness.json ## the whole road: make data, check, train, predict, judge (6 minutes)
	$(SAY) 'The verdict'
	@$(RUN) show-report $(PAGES)/readiness.json --strict; code=$$?; \
	  echo; echo "Pages: $(PAGES)/index.html"; exit $$code

$(EVENTS): | $(INSTALLED)
	$(SAY) '1/7  Synthesise sessions: five mics each, several drummers and kits'
	$(RUN) make-demo-dataset $(DATA) --sessions $(SESSIONS) --drummers $(DRUMMERS) --kits $(KITS) --duration-s $(DURATION_S) --seed $(SEED) --force

$(DEMO)/readiness_data.json: $(EVENTS) $(GATES)
	$(SAY) '2/7  Is the dataset ready to train on?'
	$(RUN) run-readiness-checks --checks alignment,health $(ALIGNMENT) $(HEALTH) \
	  --gates $(GATES) --report $@ --html-output $(PAGES)/data/index.html

$(STORE)/metadata.json: $(EVENTS)
	$(SAY) '3/7  Decode every recording once into the clip store'
	$(RUN) build-training-dataset $(EVENTS) $(STORE) --audio-root $(DATA) --seed $(SEED) --force

$(MODEL): $(STORE)/metadata.json $(DEMO)/readiness_data.json
	$(SAY) '4/7  Train: the fast preset (64 x 64 features instead of 128 x 128), to fit in minutes on a CPU'
	$(RUN) train-classifier --dataset $(STORE) --preset fast --epochs $(EPOCHS) --max-minutes $(MINUTES) \
	  --device cpu --seed $(SEED) --readiness $(DEMO)/readiness_data.json --output $(DEMO)/models \
	  --metrics-json $(DEMO)/training.json

$(PREDICTIONS)/test.jsonl: $(MODEL)
	$(SAY) '5/7  Predict sessions, drummers and kits that were never heard in training'
	$(RUN) predict --model $(MODEL) --events $(TEST) --audio-root $(DATA) --output $@

$(PREDICTIONS)/ood.jsonl: $(MODEL)
	$(RUN) predict --model $(MODEL) --events $(DATA)/annotations/ood.jsonl --audio-root $(DATA) --output $@

$(DEMO)/boundary/labels.jsonl: $(STORE)/metadata.json
	$(SAY) '6/7  Cut windows as a stream would, and predict the events beside their seams'
	$(RUN) generate-boundary-pack --events $(TEST) --output $@ --window-ms 2048 --hop-ms 512 --margin-ms 40

$(PREDICTIONS)/boundary.jsonl: $(MODEL) $(DEMO)/boundary/labels.jsonl
	$(RUN) predict --model $(MODEL) --pack $(DEMO)/boundary/labels.jsonl --audio-root $(DATA) --output $@

$(PAGES)/readiness.json: $(PREDICTIONS)/test.jsonl $(PREDICTIONS)/ood.jsonl $(PREDICTIONS)/boundary.jsonl \
    $(DEMO)/readiness_data.json $(GATES)
	$(SAY) '7/7  Is the model ready to release? All gates, one verdict'
	@# A verdict that blocks ends the target demo, which shows it, on this and on every later run.
	$(RUN) run-readiness-checks $(ALIGNMENT) $(HEALTH) --gates $(GATES) \
	  --boundary-ground-truth $(DEMO)/boundary/labels.jsonl --boundary-predictions $(PREDICTIONS)/boundary.jsonl \
	  --openset-ground-truth $(DATA)/annotations/ood.jsonl --openset-predictions $(PREDICTIONS)/ood.jsonl \
	  --bootstrap-ground-truth $(TEST) --bootstrap-predictions $(PREDICTIONS)/test.jsonl \
	  --report $@ --html-output $(PAGES)/index.html > /dev/null || test $$? -eq 1
