/* Electrode's programs in C, for comparison: one object, because they share their maps. */
#include "abi.h"

#include "frames.h"
#include "siphash.h"

#include "broadcast.h"
#include "dispatch.h"
#include "prepare.h"
#include "prepare_ok.h"
