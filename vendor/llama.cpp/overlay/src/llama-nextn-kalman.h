#pragma once

#include <cstddef>
#include <initializer_list>
#include <vector>

// Estimates of numbers that are observed in sums, with noise: a Kalman filter. What an observation says of a sum is
// shared out by how uncertain its terms are. Outliers are clipped, and those above more, as fits the logarithms of
// times: what disturbs a measurement makes it longer.
class llama_nextn_kalman {
public:
    struct guess { // of a number, before it is observed
        double mean;
        double sd;
    };

    struct term { // of a sum: a number times a factor
        int    i;
        double factor;
    };

    explicit llama_nextn_kalman(std::vector<guess> first);

    double operator[](int i) const { return mean[i]; }
    double variance(int i) const { return cov[i * n + i]; }
    double noise() const { return noise_variance; } // of an observation, as seen lately

    // Time passes: a number has wandered, by this variance; it never gets less certain than at first.
    void drift(int i, double variance);

    // Time passes: the numbers from i on have gone back towards their first guesses, from which they keep this share.
    void revert(int i, double keep);

    // Time passes: a number has gone towards zero, of which it keeps this share.
    void fade(int i, double keep);

    // A number is another one now, of which the first guess is known.
    void renew(int i);

    // A number cannot be more.
    void limit(int i, double most);

    // A sum was observed. surprise: what was observed, less the sum of the estimates.
    void observe(std::initializer_list<term> terms, double surprise) { observe(terms.begin(), terms.size(), surprise); }
    void observe(const term * terms, size_t n_terms, double surprise);

private:
    int                 n;
    std::vector<guess>  first;
    std::vector<double> mean;
    std::vector<double> cov; // [n, n]
    std::vector<double> row; // covariances with what is observed; of the last observation
    double              noise_variance;
};
