%% Another library with a SIGBUS handler.
-module(foreign_handler).

-include("foreign_handler.hrl").
