// The field visitors of the recipe's structs: the one place that names their keys. Internal to src/train.
#pragma once

#include "train/recipe.h"

namespace puna::train {

template <class V>
void visit(V& v, BatchConfig& c) {
  v("sequence_length", c.sequence_length, "longest piece of a document, tokens");
  v("tokens", c.tokens, "tokens of an optimizer step, at most");
  v("micro_tokens", c.micro_tokens, "tokens of one forward and backward, at most; 0: all of the step's");
}

template <class V>
void visit(V& v, OptimizerConfig& c) {
  v("learning_rate", c.learning_rate, "AdamW's, at the peak of the schedule");
  v("vision_rate", c.vision_rate, "times the learning rate, for the vision model and the projector");
  v("beta1", c.beta1, "decay of the first moment");
  v("beta2", c.beta2, "decay of the second moment");
  v("epsilon", c.epsilon, "added to the root of the second moment");
  v("weight_decay", c.weight_decay, "decoupled; never on norms and biases");
  v("clip_norm", c.clip_norm, "longest norm of all gradients together; 0: no clipping");
  v("reset", c.reset, "forget the moments when the stage starts");
}

template <class V>
void visit(V& v, ScheduleConfig& c) {
  v("kind", c.kind, "constant, linear, cosine or wsd (warmup, stable, decay)");
  v("warmup_steps", c.warmup_steps, "from 0 to the peak, in a straight line");
  v("decay_steps", c.decay_steps, "wsd: how many steps at the end decay");
  v("final_fraction", c.final_fraction, "of the peak, at the last step");
}

template <class V>
void visit(V& v, BalanceConfig& c) {
  v("bias_rate", c.bias_rate, "step of the experts' selection bias (no auxiliary loss); 0: no bias");
  v("load_balance_weight", c.load_balance_weight, "of the auxiliary load-balance loss; 0: none");
  v("router_z_weight", c.router_z_weight, "of the router's z-loss; 0: none");
  v("dead_fraction", c.dead_fraction, "an expert under this share of an even load is dead");
  v("dead_steps", c.dead_steps, "after so many steps in a row a dead expert is told");
}

template <class V>
void visit(V& v, CheckpointConfig& c) {
  v("every", c.every, "steps between checkpoints; 0: only at the end");
  v("keep_last", c.keep_last, "how many of the newest to keep; 0: all");
  v("keep_every", c.keep_every, "steps whose multiples are kept for good; 0: none");
}

template <class V>
void visit(V& v, LogConfig& c) {
  v("details_every", c.details_every, "steps between lines with expert loads and losses by source and position");
  v("outlier_z", c.outlier_z, "deviations above the last 128 steps that make a loss or norm an outlier");
}

template <class V>
void visit(V& v, SourceConfig& c) {
  v("name", c.name, "for metrics and stage weights");
  v("files", c.files, "texts, JSONL files, directories; relative to the recipe");
  v("generate", c.generate, "a generator: puna data generate --help lists them");
  v("dataset", c.dataset, "a directory written by puna data build");
  v("documents", c.documents, "generate: how many");
  v("seed", c.seed, "generate: of the documents");
  v("length", c.length, "generate: rough tokens of a document");
  v("file", c.file, "generate: what the generator reads, relative to the recipe");
  v("weight", c.weight, "share of the tokens, relative to the others");
  v("max_epochs", c.max_epochs, "how often it may be gone through in one stage; 0: no limit");
  v("validation", c.validation, "only measured, never trained on; generate: the held-out split");
}

template <class V>
void visit(V& v, ValidationConfig& c) {
  v("every", c.every, "steps between measurements on the validation sources; 0: none");
  v("tokens", c.tokens, "of each of them, at most");
}

template <class V>
void visit(V& v, StageConfig& c) {
  v("name", c.name, "for metrics and overrides");
  v("steps", c.steps, "optimizer steps");
  v("freeze", c.freeze, "parts that do not learn: text, vision, router, embedding");
  v("weights", c.weights, "source = share; those absent are not used");
}

template <class V>
void visit(V& v, ModelConfig& c) {
  v("from", c.from, "checkpoint to start from, any format; absent: random weights");
  v("tokenizer", c.tokenizer, "file or directory; absent: beside `from`, or trained");
  v("vocab_size", c.vocab_size, "entries of a tokenizer trained on the sources; 0: none");
  v("single_digits", c.single_digits, "of a trained tokenizer: every ASCII digit is a token of its own");
  v("embedding_deviation", c.embedding_deviation, "of random weights; near 1, small models learn to look up sooner");
  v("max_tiles", c.max_tiles, "that a picture is cut into, beside the whole of it; 0: as `from`, else 16");
  v("generation", c.generation, "keys of the exported generation_config.json, such as {do_sample = false}");
  v("config", c.config, "Hugging Face config.json as a table; vocabulary and token ids follow the tokenizer");
}

// The top level, beside its tables.
template <class V>
void visit(V& v, Recipe& r) {
  v("out", r.out, "run directory, relative to where the program runs");
  v("seed", r.seed, "of weights and order of samples");
  v("threads", r.threads, "0: all physical cores");
  v("precision", r.precision, "float32, float64, or bfloat16 with FP32 master weights");
  v("recompute", r.recompute, "compute blocks of the text model again in backward, to save memory");
  v("deterministic", r.deterministic,
    "the same bits every time, on one machine with the same threads; an operation that cannot is an error");
}

/// [stage.model]: of the text config, what changes no shape of a weight. For people; stage_config() decides.
struct StageModelKey {
  const char *key, *help;
};
inline constexpr StageModelKey kStageModelKeys[] = {
    {"ntk_factor", "f of 1 or more: rope_theta times f^(K / (K - 2)), K the width of a head"},
    {"rope_theta", "base of the rotations"},
    {"rope_scaling", "table of the llama3 type"},
    {"max_position_embeddings", "longest sequence, tokens"},
    {"attention_chunk_size", "what layers with rope see, tokens"},
    {"floor_scale", "positions of one step of the temperature of layers without rope"},
    {"attn_scale", "that temperature is 1 + attn_scale ln(1 + steps)"},
};

}  // namespace puna::train
