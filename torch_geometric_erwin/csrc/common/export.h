#pragma once

#if defined(_WIN32)
#define TGE_EXPORT extern "C" __declspec(dllexport)
#else
#define TGE_EXPORT extern "C" __attribute__((visibility("default")))
#endif
