#include "raw-peer.h"
namespace tandem { void fuzz(int, unsigned) {} }
