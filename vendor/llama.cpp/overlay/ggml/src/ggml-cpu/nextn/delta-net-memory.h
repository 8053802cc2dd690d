// How a graph brings the states of a delta net from the memory and takes them back to it, as far as they can stay
// there.
#pragma once

#include "ggml-impl.h"
#include "ggml.h"

#include <cstdint>

struct ggml_compute_params;

namespace nextn {

// The graph copies the newest states from the result of a delta net into the memory, and nothing else reads them there.
class copied_delta_net {
public:
    copied_delta_net(const ggml_cgraph * graph, int i_net);

    bool                found() const { return i_copy >= 0; }
    int                 n_nodes_after(int i_net) const { return i_copy - i_net; }
    const ggml_tensor * destination() const { return graph->nodes[i_copy]; }

private:
    int64_t      n_state() const;
    const char * states() const;
    int          find_copy(int i) const;
    bool         only_the_copy_reads_states(int i) const;

    const ggml_cgraph * graph;
    const ggml_tensor * net;
    int                 i_copy;
};

// The states that a delta net begins with, which the graph gathers from rows of the memory before it. They are read
// where they are, if nothing else needs them together and nothing is written there in between. The gathering then only
// leaves the numbers of the rows in its result: their own place may be used again before the delta net comes.
class gathered_states {
public:
    gathered_states(const ggml_cgraph * graph, int i_net);

    // The delta net that node i may gather for, or -1.
    static int find_net(const ggml_cgraph * graph, int i);

    bool found() const { return i_gather >= 0; }
    int  node() const { return i_gather; }

    void          leave_numbers() const;
    const float * row(int64_t seq) const; // once the numbers are there

    // What the gathering would have done, shared among the threads.
    void compute(const ggml_compute_params * params) const;

private:
    int  find_gather(int i_net) const;
    bool is_rows_of_states(const ggml_tensor * x) const;
    bool is_written_between(int i0, int i1) const;

    const ggml_cgraph * graph;
    const ggml_tensor * net;
    int                 i_gather;
};

// Whether the older states that the delta nets of a graph keep for a rollback fit the caches beside everything else.
bool keeps_few_states(const ggml_cgraph * graph);

} // namespace nextn
