"""What holds for every component, as functions without a test runner: ``unisono check PACKAGE`` and the project's tests call them."""
