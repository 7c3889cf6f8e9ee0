%% A second library with a SIGBUS handler: the same once more.
-module(other_foreign_handler).

-include("foreign_handler.hrl").
