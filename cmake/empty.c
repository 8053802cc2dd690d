/* The whole source of a CPU variant that is left out: see cpu_variants.cmake. */
typedef int nextn_empty;
