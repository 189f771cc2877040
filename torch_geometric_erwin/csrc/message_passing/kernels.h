// All of message passing for an instruction set; no include guard.
#include "common/vector.h"
#include "message_passing/gelu.h"
#include "message_passing/moments.h"
#include "message_passing/messages.h"
