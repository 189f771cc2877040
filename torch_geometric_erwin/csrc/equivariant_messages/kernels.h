// All of these messages for an instruction set; no include guard.
#include "common/vector.h"
#include "message_passing/gelu.h"
#include "message_passing/moments.h"
#include "equivariant_messages/messages.h"
