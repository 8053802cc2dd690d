#include "llama-nextn-kalman.h"

#include <algorithm>
#include <cmath>
#include <utility>

static constexpr double first_noise_sd = 0.1;
static constexpr double least_noise_sd = 0.02;
static constexpr double noise_rate     = 0.05; // of what the newest observation says of the noise
static constexpr double most_above     = 1.5;  // standard deviations that count of a surprise
static constexpr double most_below     = 3;

llama_nextn_kalman::llama_nextn_kalman(std::vector<guess> guesses)
    : n((int) guesses.size()), first(std::move(guesses)), mean(n), cov(n * n), row(n),
      noise_variance(first_noise_sd * first_noise_sd) {
    for (int i = 0; i < n; ++i) {
        mean[i]        = first[i].mean;
        cov[i * n + i] = first[i].sd * first[i].sd;
    }
}

void llama_nextn_kalman::drift(int i, double variance) {
    double &     present = cov[i * n + i];
    const double most    = first[i].sd * first[i].sd;
    present              = std::max(present, std::min(present + variance, most));
}

void llama_nextn_kalman::revert(int from, double keep) {
    for (int i = 0; i < n; ++i) {
        const double of_row = i < from ? 1 : keep;
        for (int j = i < from ? from : 0; j < n; ++j) {
            cov[i * n + j] *= j < from ? of_row : of_row * keep;
        }
    }
    for (int i = from; i < n; ++i) {
        mean[i] = first[i].mean + keep * (mean[i] - first[i].mean);
        cov[i * n + i] += (1 - keep * keep) * first[i].sd * first[i].sd;
    }
}

void llama_nextn_kalman::fade(int i, double keep) {
    mean[i] *= keep;
    for (int j = 0; j < n; ++j) {
        cov[i * n + j] *= keep;
        cov[j * n + i] *= keep;
    }
}

void llama_nextn_kalman::renew(int i) {
    fade(i, 0);
    mean[i]        = first[i].mean;
    cov[i * n + i] = first[i].sd * first[i].sd;
}

void llama_nextn_kalman::limit(int i, double most) {
    mean[i] = std::min(mean[i], most);
}

void llama_nextn_kalman::observe(const term * terms, size_t n_terms, double surprise) {
    std::fill(row.begin(), row.end(), 0.0);
    for (size_t j = 0; j < n_terms; ++j) {
        for (int i = 0; i < n; ++i) {
            row[i] += terms[j].factor * cov[terms[j].i * n + i];
        }
    }
    double unknown = 0; // variance of the sum, but for the noise
    for (size_t j = 0; j < n_terms; ++j) {
        unknown += terms[j].factor * row[terms[j].i];
    }
    const double total = unknown + noise_variance;
    const double sd    = std::sqrt(total);
    surprise           = std::clamp(surprise, -most_below * sd, most_above * sd);

    const double scale = 1 / total;
    for (int i = 0; i < n; ++i) {
        mean[i] += row[i] * surprise * scale;
        for (int j = 0; j < n; ++j) {
            cov[i * n + j] -= row[i] * row[j] * scale; // the same bits in (j, i)
        }
    }
    // Noise is learnt from what is less than expected, as there are no outliers, and where it shows.
    if (surprise < 0 && unknown < 2 * noise_variance) {
        const double shown = surprise * surprise - unknown;
        noise_variance += noise_rate * (shown - noise_variance);
        noise_variance = std::max(noise_variance, least_noise_sd * least_noise_sd);
    }
}
