// fontconfig keeps its settings until the process ends, which the leak checker takes for a leak.
#if defined(__SANITIZE_ADDRESS__)
extern "C" const char* __lsan_default_suppressions();  // the sanitizer's own name
extern "C" const char* __lsan_default_suppressions() { return "leak:libfontconfig"; }
#endif
