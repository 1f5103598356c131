CREATE TABLE done (
	stage TEXT NOT NULL,
	item TEXT NOT NULL,
	input_digest TEXT NOT NULL,
	run_id TEXT NOT NULL,
	created BIGINT NOT NULL,
	PRIMARY KEY (stage, item)
);

CREATE TABLE file (
	digest TEXT NOT NULL,
	name TEXT NOT NULL,
	kind TEXT NOT NULL,
	path TEXT,
	n_bytes BIGINT NOT NULL,
	packets_in BIGINT NOT NULL,
	used BIGINT NOT NULL,
	duplicates BIGINT NOT NULL,
	rejected BIGINT NOT NULL,
	run_id TEXT NOT NULL,
	ingested BIGINT NOT NULL,
	attrs TEXT NOT NULL,
	PRIMARY KEY (digest)
);

CREATE TABLE garbage (
	path TEXT NOT NULL,
	since BIGINT NOT NULL,
	PRIMARY KEY (path)
);

CREATE TABLE image (
	id INTEGER NOT NULL,
	image_id TEXT NOT NULL,
	flare_id TEXT,
	method TEXT NOT NULL,
	energy_low FLOAT NOT NULL,
	energy_high FLOAT NOT NULL,
	start BIGINT NOT NULL,
	stop BIGINT NOT NULL,
	path TEXT NOT NULL,
	digest TEXT NOT NULL,
	x_hpc FLOAT,
	y_hpc FLOAT,
	run_id TEXT NOT NULL,
	created BIGINT NOT NULL,
	attrs TEXT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (image_id)
);

CREATE INDEX image_flare ON image (flare_id);

CREATE INDEX image_start ON image (start);

CREATE TABLE location (
	flare_id TEXT NOT NULL,
	attrs TEXT NOT NULL,
	PRIMARY KEY (flare_id)
);

CREATE TABLE meta (
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (name)
);

CREATE TABLE packet_set (
	id INTEGER NOT NULL,
	product TEXT NOT NULL,
	"key" TEXT NOT NULL,
	digest TEXT NOT NULL,
	path TEXT NOT NULL,
	n_packets BIGINT NOT NULL,
	file_digest TEXT NOT NULL,
	run_id TEXT NOT NULL,
	attrs TEXT NOT NULL,
	PRIMARY KEY (id)
);

CREATE UNIQUE INDEX packet_set_once ON packet_set (product, "key", digest);

CREATE TABLE partition (
	id INTEGER NOT NULL,
	run_id TEXT NOT NULL,
	product TEXT NOT NULL,
	"key" TEXT NOT NULL,
	day TEXT NOT NULL,
	request_id BIGINT,
	seq_control BIGINT,
	state TEXT NOT NULL,
	path TEXT NOT NULL,
	digest TEXT NOT NULL,
	input_digest TEXT NOT NULL,
	code_version TEXT NOT NULL,
	data_model_version INTEGER NOT NULL,
	n_time BIGINT NOT NULL,
	boxes INTEGER NOT NULL,
	counts_sum BIGINT NOT NULL,
	n_bytes BIGINT NOT NULL,
	start BIGINT NOT NULL,
	stop BIGINT NOT NULL,
	structure TEXT NOT NULL,
	axes TEXT NOT NULL,
	complete BOOLEAN NOT NULL,
	missing TEXT NOT NULL,
	shrink_reason TEXT NOT NULL,
	replaces BIGINT,
	created BIGINT NOT NULL,
	attrs TEXT NOT NULL,
	collected BIGINT,
	PRIMARY KEY (id),
	UNIQUE (path)
);

CREATE INDEX partition_key ON partition (product, "key");

CREATE INDEX partition_request ON partition (request_id);

CREATE TABLE quarantine (
	id INTEGER NOT NULL,
	run_id TEXT NOT NULL,
	file TEXT NOT NULL,
	reason TEXT NOT NULL,
	"offset" BIGINT,
	n_bytes BIGINT,
	path TEXT,
	created BIGINT NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX quarantine_run ON quarantine (run_id);

CREATE TABLE release (
	name TEXT NOT NULL,
	note TEXT NOT NULL,
	code_version TEXT NOT NULL,
	created BIGINT NOT NULL,
	PRIMARY KEY (name)
);

CREATE TABLE run (
	run_id TEXT NOT NULL,
	command TEXT NOT NULL,
	state TEXT NOT NULL,
	code_version TEXT NOT NULL,
	started BIGINT NOT NULL,
	finished BIGINT,
	summary TEXT NOT NULL,
	host TEXT,
	pid BIGINT,
	process TEXT,
	seen BIGINT,
	PRIMARY KEY (run_id)
);

CREATE TABLE current (
	product TEXT NOT NULL,
	"key" TEXT NOT NULL,
	partition_id INTEGER NOT NULL,
	revision BIGINT NOT NULL,
	start BIGINT NOT NULL,
	stop BIGINT NOT NULL,
	PRIMARY KEY (product, "key"),
	UNIQUE (partition_id),
	FOREIGN KEY(partition_id) REFERENCES partition (id)
);

CREATE INDEX current_span ON current (product, start, stop);

CREATE TABLE flare (
	id INTEGER NOT NULL,
	partition_id INTEGER NOT NULL,
	flare_id TEXT NOT NULL,
	start BIGINT NOT NULL,
	peak BIGINT NOT NULL,
	stop BIGINT NOT NULL,
	peak_counts FLOAT,
	attrs TEXT NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(partition_id) REFERENCES partition (id)
);

CREATE INDEX flare_id ON flare (flare_id);

CREATE UNIQUE INDEX flare_once ON flare (partition_id, flare_id);

CREATE INDEX flare_peak ON flare (peak);

CREATE TABLE release_partition (
	release TEXT NOT NULL,
	product TEXT NOT NULL,
	"key" TEXT NOT NULL,
	partition_id INTEGER NOT NULL,
	PRIMARY KEY (release, product, "key"),
	FOREIGN KEY(release) REFERENCES release (name),
	FOREIGN KEY(partition_id) REFERENCES partition (id)
);

CREATE INDEX release_partition_id ON release_partition (partition_id);

CREATE TABLE release_row (
	release TEXT NOT NULL,
	kind TEXT NOT NULL,
	item TEXT NOT NULL,
	attrs TEXT NOT NULL,
	PRIMARY KEY (release, kind, item),
	FOREIGN KEY(release) REFERENCES release (name)
);

INSERT INTO meta (name, value) VALUES ('schema_version', '3');
