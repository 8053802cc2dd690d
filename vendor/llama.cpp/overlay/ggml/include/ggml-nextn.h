// What a backend promises about the few columns of a decode or verify batch.
//
// Both functions are asked for by name, with ggml_backend_reg_get_proc_address. A backend that has none promises
// nothing.
#pragma once

#include "ggml.h"

#include <stdbool.h>

// "ggml_nextn_inexact": why a row of the result of this operation may have other bits than the engine gives it when it
// decodes one token at a time, or NULL when it has the same. The weights must be in their buffer. The text is static.
typedef const char * (*ggml_nextn_inexact_t)(const struct ggml_tensor * op);

// "ggml_nextn_shares_columns": whether a block of weights of this type is read once for all columns. Of other types the
// columns are computed one after the other: with the same bits, but each at the price of the first.
typedef bool (*ggml_nextn_shares_columns_t)(enum ggml_type type);

// How the text of an error about a worker of the RPC backend begins; its address follows.
#define GGML_NEXTN_WORKER "the worker "
