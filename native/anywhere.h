// Marks what a processor and a GPU both compute.
#pragma once

#ifdef __CUDACC__
#define TANDEM_ANYWHERE __host__ __device__
#else
#define TANDEM_ANYWHERE
#endif
