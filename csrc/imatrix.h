#pragma once

// What the weights of a model are multiplied with, collected while contexts compute: an importance matrix.

#include "ggml.h"

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace nextn {

// The sum of the squares of each input column of one weight, for each of its matrices (experts), and how many rows
// were summed.
struct InputSquares {
    std::vector<double> sums;    // [n_matrix, n_col]
    std::vector<int64_t> counts; // [n_matrix]
    int64_t n_col = 0;
};

// Filled by the contexts that were made with it, from their computing threads.
class Imatrix {
  public:
    // The engine's callback for every computed node: first whether it is wanted, then with its inputs there.
    static bool on_node(ggml_tensor * node, bool ask, void * self);

    std::map<std::string, InputSquares> entries() const;

  private:
    void collect(const ggml_tensor * node);
    void add_rows(const ggml_tensor * weight, const ggml_tensor * input, const char * data);
    void add_routed_rows(const ggml_tensor * weight, const ggml_tensor * input, const char * data,
                         const ggml_tensor * ids);
    InputSquares & entry_for(const ggml_tensor * weight, int64_t n_col, int64_t n_matrix);

    mutable std::mutex mutex;
    std::map<std::string, InputSquares> by_name;
};

} // namespace nextn
