import copy

import torch
from orthogonal_group import random
from torch import nn

from mlip.o3.constants import ConstantModule


class _Holder(ConstantModule):
    def __init__(self) -> None:
        super().__init__()
        self.register_constant("table", random(4))


def test_round_trip_through_single_precision_loses_nothing():
    module = nn.Sequential(_Holder())
    module.float()
    assert module[0].table.dtype == torch.float32
    copy.deepcopy(module).double()
    module.double()
    torch.testing.assert_close(module[0].table, random(4), rtol=0, atol=0)


def test_constant_follows_the_operand_and_is_no_state():
    module = _Holder()
    assert module.constant("table", torch.zeros(1, dtype=torch.float32)).dtype == torch.float32
    assert module.table.dtype == torch.float64
    assert not module.state_dict()
